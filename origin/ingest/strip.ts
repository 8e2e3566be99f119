/**
 * Takes the place where a picture was made out of its file, and nothing that
 * touches a pixel: JPEG, PNG and WebP, losslessly, keeping orientation.
 */

export type StripOutcome =
  /** A new file stands at the target path. */
  | { readonly kind: 'stripped'; readonly sizeBytes: number }
  /** The file holds nothing to take out; nothing was written. */
  | { readonly kind: 'clean' }
  /** Not of a type that this knows. */
  | { readonly kind: 'unsupported' }
  /** Its structure does not hold together, so that nothing can be promised of it. */
  | { readonly kind: 'broken' };

/** Reads `source`, writes `target` (synced) where something was to be taken out. */
export function stripLocation(
  _source: string,
  _target: string,
  _mime: string,
  _signal?: AbortSignal,
): Promise<StripOutcome> {
  return Promise.reject(new Error('stripping has not landed yet'));
}
