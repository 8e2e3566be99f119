/** What the service answers, with the names that it has in `/openapi.json`. Declarations only. */

/** Media as an upload and the info answer them. Null: not known, or none. */
export interface Media {
  readonly id: string;
  readonly url: string;
  readonly thumb_url: string | null;
  readonly etag: string;
  readonly sha256: string;
  /** Bytes, as stored: fewer than were sent where the service removes metadata. */
  readonly size: number;
  readonly mime: string;
  readonly public: boolean;
  readonly width: number | null;
  readonly height: number | null;
  /** Seconds. */
  readonly duration: number | null;
  /** Base64. */
  readonly thumbhash: string | null;
  readonly filename: string | null;
  /** RFC 3339, as is `expires_at`. */
  readonly created_at: string | null;
  readonly expires_at: string | null;
}

/** The answer to an upload. */
export interface Uploaded extends Media {
  /** Whether the same bytes were there already; the id is theirs then. */
  readonly duplicate: boolean;
}

/** Signed addresses, for elements of a page that cannot send a token. */
export interface MediaLink {
  readonly id: string;
  readonly url: string;
  /** Of every thumbnail: `w` and `h` may be added. */
  readonly thumb_url: string;
  readonly info_url: string;
  readonly expires_at: string;
}

/** One size of thumbnails, of `capabilities.thumbnails` in `/.well-known`. */
export interface Variant {
  readonly name: string;
  readonly width: number;
  readonly height: number;
}

/** The parts of `/.well-known` that this library uses. */
export interface About {
  readonly base_uri: string;
  /** Bytes. */
  readonly max_upload_size: number;
  readonly capabilities: {
    readonly accepted_types: readonly string[];
    readonly stripped_types: readonly string[] | null;
    readonly thumbnails: { readonly variants: readonly Variant[] };
    readonly resumable: { readonly endpoint: string; readonly version: string };
  };
}

/** A link of `POST /v1/uploads/link`, which opens one upload without a token. */
export interface UploadLink {
  readonly url: string;
  readonly tus_url: string;
}
