/**
 * An upload in pieces over tus 1.0.0, by tus-js-client, which is loaded when the
 * first such upload begins. Each piece carries its SHA-256, so the service appends
 * none that was damaged on the way. Leaves waiting and repeating to its caller: an
 * attempt continues where the one before ended.
 */
import { base64, sha256 } from './digest.js';
import { asMediaError, errorOf, MediaError, type Received } from './errors.js';

/** What is used of tus-js-client. */
export interface TusModule {
  readonly Upload: new (file: Blob, options: Record<string, unknown>) => TusUpload;
}

interface TusUpload {
  start(): void;
  abort(terminate?: boolean): Promise<unknown>;
}

interface TusRequest {
  getMethod(): string;
  setHeader(name: string, value: string): void;
}

interface TusResponse {
  getStatus(): number;
  getBody(): string;
  getHeader(name: string): string | null | undefined;
}

export interface ResumableOptions {
  readonly endpoint: string;
  readonly type: string;
  readonly filename?: string | undefined;
  readonly public?: boolean | undefined;
  readonly expiresIn?: number | undefined;
  /** With an upload link the link says what is public and when it expires. */
  readonly link?: unknown;
  readonly pieceBytes: number;
  /** Undefined: as `tus-js-client` is found by its name. */
  readonly loadTus?: () => Promise<TusModule>;
  credential(): Promise<Record<string, string>>;
  now(): number;
  readonly onProgress: (sentBytes: number) => void;
  /** The service has so many bytes. */
  readonly onAccepted: (bytes: number) => void;
}

export type ResumableAnswer =
  | { readonly kind: 'described'; readonly received: Received }
  /** The answer to the last piece was lost, and a later one only names the media. */
  | { readonly kind: 'named'; readonly id: string };

export interface Resumable {
  /** Sends what the service has not got yet. */
  attempt(signal: AbortSignal): Promise<ResumableAnswer>;
  /** Tells the service to forget what it has. */
  forget(): void;
}

export function openResumable(body: Blob, options: ResumableOptions): Resumable {
  let settle: Settle | undefined;
  let upload: TusUpload | undefined;
  const open = async (): Promise<TusUpload> => {
    const { Upload } = await load(options);
    return new Upload(
      body,
      tusOptions(body, options, () => settle),
    );
  };
  return {
    async attempt(signal) {
      upload ??= await open();
      const answer = await run(upload, signal, (next) => (settle = next));
      if (answer.text.startsWith('{')) return { kind: 'described', received: answer };
      const id = answer.field('media-location')?.split('/').at(-1);
      if (id === undefined) throw new MediaError('unexpected', 'The service did not name the media.');
      return { kind: 'named', id };
    },
    forget: () => void upload?.abort(true).catch(() => undefined),
  };
}

/** How the attempt that runs ends. */
interface Settle {
  resolve(answer: Received): void;
  reject(reason: Error): void;
}

function run(upload: TusUpload, signal: AbortSignal, setSettle: (settle?: Settle) => void): Promise<Received> {
  return new Promise((resolve, reject) => {
    const onAbort = (): void => {
      void upload.abort().catch(() => undefined);
      end(() => reject(signal.reason as Error));
    };
    const end = (settleIt: () => void): void => {
      setSettle();
      signal.removeEventListener('abort', onAbort);
      settleIt();
    };
    setSettle({
      resolve: (answer) => end(() => resolve(answer)),
      reject: (reason) => end(() => reject(reason)),
    });
    signal.addEventListener('abort', onAbort);
    if (signal.aborted) onAbort();
    else upload.start();
  });
}

function tusOptions(body: Blob, options: ResumableOptions, settle: () => Settle | undefined): Record<string, unknown> {
  let digest: Uint8Array | undefined;
  return {
    endpoint: options.endpoint,
    metadata: metadataOf(options),
    chunkSize: options.pieceBytes,
    retryDelays: null,
    storeFingerprintForResuming: false,
    fileReader: { openFile: () => Promise.resolve(source(body, (hash) => (digest = hash))) },
    async onBeforeRequest(request: TusRequest) {
      for (const [name, value] of Object.entries(await options.credential())) request.setHeader(name, value);
      request.setHeader('Accept', 'application/json');
      if (request.getMethod() !== 'PATCH' || digest === undefined) return;
      request.setHeader('Upload-Checksum', `sha256 ${base64(digest)}`);
    },
    onProgress: options.onProgress,
    onChunkComplete: (_size: number, acceptedBytes: number) => options.onAccepted(acceptedBytes),
    onSuccess: ({ lastResponse }: { readonly lastResponse: TusResponse }) => settle()?.resolve(received(lastResponse)),
    onError(error: { readonly originalResponse?: TusResponse | null }) {
      const refusal = error.originalResponse ?? undefined;
      // tus-js-client also fails of an answer that it expected to be another one.
      const refused = refusal !== undefined && refusal.getStatus() >= 400;
      settle()?.reject(refused ? errorOf(received(refusal), options.now()) : asMediaError(error));
    },
  };
}

function metadataOf(options: ResumableOptions): Record<string, string> {
  const { filename, type, link, expiresIn } = options;
  return {
    ...(filename !== undefined && { filename }),
    ...(type !== '' && { filetype: type }),
    ...(link === undefined && options.public !== undefined && { public: String(options.public) }),
    ...(link === undefined && expiresIn !== undefined && { expires_in: String(expiresIn) }),
  };
}

async function load({ loadTus }: ResumableOptions): Promise<TusModule> {
  try {
    return loadTus === undefined ? await import('tus-js-client') : await loadTus();
  } catch (thrown) {
    throw new MediaError(
      'tus_unavailable',
      'Files of this size need the package tus-js-client, or a larger resumableAboveBytes.',
      { cause: thrown },
    );
  }
}

/** What tus-js-client reads from: bytes with a `size`, which it sends alike in browsers and Node. */
function source(body: Blob, onPiece: (digest: Uint8Array | undefined) => void) {
  return {
    size: body.size,
    async slice(start: number, end: number) {
      const piece = body.slice(start, end);
      const bytes = await piece.arrayBuffer();
      onPiece(await sha256(bytes));
      const value = typeof XMLHttpRequest === 'undefined' ? sized(bytes) : piece;
      return { value, done: end >= body.size };
    },
    close: () => undefined,
  };
}

function sized(bytes: ArrayBuffer): Uint8Array {
  return Object.assign(new Uint8Array(bytes), { size: bytes.byteLength });
}

function received(response: TusResponse): Received {
  return {
    status: response.getStatus(),
    text: response.getBody(),
    field: (name) => response.getHeader(name) ?? null,
  };
}
