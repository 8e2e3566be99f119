/**
 * Blobs as objects of a bucket, on any server that speaks S3. The AWS SDK is
 * imported here alone.
 *
 * Promises: a blob is there whole or not at all: its SHA-256 is part of the
 * signed request, so that a server which checks signatures refuses other bytes,
 * and its size is asked for before a write counts. Every body is read to its
 * end or destroyed; every request has a limit in time, tries and connections.
 *
 * Parts of a large blob are sent by ourselves rather than by the SDK's upload
 * library, which can neither break off parts under way nor waits for its own
 * clearing up. The same holds for retries, so that they can be cancelled.
 */
import { randomUUID } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { type FileHandle, mkdir, open, rm } from 'node:fs/promises';
import { resolve } from 'node:path';
import {
  AbortMultipartUploadCommand,
  CompleteMultipartUploadCommand,
  CreateMultipartUploadCommand,
  DeleteObjectCommand,
  GetObjectCommand,
  HeadObjectCommand,
  ListMultipartUploadsCommand,
  ListObjectsV2Command,
  PutObjectCommand,
  S3Client,
  UploadPartCommand,
} from '@aws-sdk/client-s3';
import { sharedController } from '../../src/abort.js';
import { type Clock, sleep } from '../../src/clock.js';
import { invariant } from '../../src/errors.js';
import type { ByteSpan } from '../../src/http/range.js';
import type { Sha256 } from '../../src/ids.js';
import { errorFields, type Log } from '../../src/log.js';
import { createSlots, type Slots } from '../../src/slots.js';
import { type BlobKey, type BlobListing, type BlobStore, parseBlobKey, type ReadOutcome } from './blob-store.js';
import type { S3Config } from './config.js';
import { foundIn, isMissing, mayHelpToRetry, nameOf, statusOf } from './s3-answers.js';
import { storageFault } from './storage-fault.js';

export interface S3StoreParts {
  readonly config: S3Config;
  readonly stageFolder: string;
  readonly clock: Clock;
  readonly log: Log;
}

/** Does not wait for the server: it may come later, and readiness tells. */
export async function openS3Store(parts: S3StoreParts): Promise<BlobStore> {
  const stageFolder = resolve(parts.stageFolder);
  await mkdir(stageFolder, { recursive: true });
  return new S3Store({ ...parts, stageFolder });
}

interface Facts {
  readonly sizeBytes: number;
  readonly sha256: Sha256;
}

class S3Store implements BlobStore {
  readonly kind = 's3';
  readonly region: string;
  readonly stageFolder: string;
  readonly #config: S3Config;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #client: S3Client;
  readonly #connections: Slots;
  readonly #closing = sharedController();
  readonly #clearing: Promise<void>;
  /** Until the server says that it knows no conditional writes. */
  #conditional = true;

  constructor({ config, stageFolder, clock, log }: S3StoreParts) {
    this.region = config.region;
    this.stageFolder = stageFolder;
    this.#config = config;
    this.#clock = clock;
    this.#log = log.child({ part: 'blobs' });
    this.#client = createClient(config, this.#log);
    this.#connections = createSlots(config.socketsMax);
    this.#clearing = this.#removeAbandonedParts(this.#closing.signal);
  }

  async adopt(stagedPath: string, key: BlobKey, facts: Facts, signal?: AbortSignal): Promise<void> {
    try {
      signal?.throwIfAborted();
      await this.#store(stagedPath, key, facts, signal);
    } catch (thrown) {
      throw storageFault(thrown, signal);
    } finally {
      await rm(stagedPath, { force: true });
    }
  }

  async read(key: BlobKey, span?: ByteSpan, signal?: AbortSignal): Promise<ReadOutcome> {
    const range = span === undefined ? {} : { Range: `bytes=${span.first}-${span.last}` };
    const command = { ...this.#at(key), ...range };
    try {
      const { result, release } = await this.#hold(
        (options) => this.#client.send(new GetObjectCommand(command), options),
        signal,
      );
      return foundIn(result, span, release);
    } catch (thrown) {
      if (isMissing(thrown)) return { kind: 'missing' };
      if (statusOf(thrown) !== 416) throw storageFault(thrown, signal);
    }
    const sizeBytes = await this.stat(key, signal);
    return sizeBytes === undefined ? { kind: 'missing' } : { kind: 'unsatisfiable', sizeBytes };
  }

  fileOf(): undefined {
    return undefined;
  }

  async stat(key: BlobKey, signal?: AbortSignal): Promise<number | undefined> {
    const at = this.#at(key);
    try {
      const head = await this.#try((options) => this.#client.send(new HeadObjectCommand(at), options), signal);
      return head.ContentLength;
    } catch (thrown) {
      if (isMissing(thrown)) return undefined;
      throw storageFault(thrown, signal);
    }
  }

  async remove(key: BlobKey, signal?: AbortSignal): Promise<void> {
    const at = this.#at(key);
    try {
      await this.#try((options) => this.#client.send(new DeleteObjectCommand(at), options), signal);
    } catch (thrown) {
      if (!isMissing(thrown)) throw storageFault(thrown, signal);
    }
  }

  async *list(prefix: 'media/' | 'thumb/' | `thumb/${string}/`, signal?: AbortSignal): AsyncIterable<BlobListing> {
    const { bucket: Bucket, prefix: before } = this.#config;
    let ContinuationToken: string | undefined;
    do {
      const command = new ListObjectsV2Command({ Bucket, Prefix: before + prefix, ContinuationToken });
      const page = await this.#try((options) => this.#client.send(command, options), signal).catch(
        (thrown: unknown) => {
          throw storageFault(thrown, signal);
        },
      );
      for (const { Key = '', Size, LastModified } of page.Contents ?? []) {
        const key = parseBlobKey(Key.slice(before.length));
        if (key === undefined || Size === undefined || LastModified === undefined) continue;
        yield { key, sizeBytes: Size, storedAt: LastModified.getTime() };
      }
      ContinuationToken = page.IsTruncated === true ? page.NextContinuationToken : undefined;
    } while (ContinuationToken !== undefined);
  }

  async probe(signal?: AbortSignal): Promise<void> {
    const at = { Bucket: this.#config.bucket, Key: `${this.#config.prefix}probe/${randomUUID()}` };
    const written = randomUUID();
    try {
      await this.#try((options) => this.#client.send(new PutObjectCommand({ ...at, Body: written }), options), signal);
      const read = await this.#try(async (options) => {
        const { Body } = await this.#client.send(new GetObjectCommand(at), options);
        return await Body?.transformToString();
      }, signal);
      if (read !== written) throw new Error('what was read is not what was written');
      await this.#try((options) => this.#client.send(new DeleteObjectCommand(at), options), signal);
    } catch (thrown) {
      throw storageFault(thrown, signal);
    }
  }

  async freeBytes(): Promise<null> {
    return null;
  }

  async close(): Promise<void> {
    this.#closing.abort(new Error('the blob store is closed'));
    await this.#clearing;
    this.#client.destroy();
  }

  async #store(stagedPath: string, key: BlobKey, facts: Facts, signal: AbortSignal | undefined): Promise<void> {
    const handle = await open(stagedPath, 'r');
    try {
      const { size } = await handle.stat();
      if (size !== facts.sizeBytes) {
        throw new Error(`a staged file of ${size} bytes was said to have ${facts.sizeBytes}`);
      }
      const inParts = facts.sizeBytes > this.#config.multipartAboveBytes;
      const put = (replace: boolean): Promise<'stored' | 'exists'> =>
        inParts
          ? this.#putInParts(handle, key, facts, replace, signal)
          : this.#putWhole(stagedPath, key, facts, replace, signal);
      // A copy that stands is kept if it is whole, as far as its size tells.
      if ((await put(false)) === 'exists' && (await this.stat(key, signal)) !== facts.sizeBytes) await put(true);
    } finally {
      await handle.close();
    }
    const storedBytes = await this.stat(key, signal);
    if (storedBytes === facts.sizeBytes) return;
    await this.remove(key, signal);
    throw new Error(`the server kept ${storedBytes ?? 'none'} of ${facts.sizeBytes} bytes`);
  }

  async #putWhole(
    stagedPath: string,
    key: BlobKey,
    facts: Facts,
    replace: boolean,
    signal: AbortSignal | undefined,
  ): Promise<'stored' | 'exists'> {
    return await this.#unlessExists(replace, signal, async (condition, options) => {
      const body = createReadStream(stagedPath, { end: facts.sizeBytes - 1 });
      const ended = new AbortController();
      const onAbort = (): void => ended.abort(options.abortSignal.reason);
      options.abortSignal.addEventListener('abort', onAbort, { once: true });
      // The SDK pipes the file without looking at its errors.
      body.on('error', (error) => ended.abort(error));
      const command = new PutObjectCommand({
        ...this.#at(key),
        ...condition,
        Body: body,
        ContentLength: facts.sizeBytes,
      });
      command.middlewareStack.add(
        (next) => (args) => {
          // The signer takes the hash that stands here, where it would otherwise leave a stream unsigned.
          (args.request as { headers: Record<string, string> }).headers['x-amz-content-sha256'] = facts.sha256;
          return next(args);
        },
        { step: 'build', name: 'knownPayloadHash' },
      );
      try {
        await this.#client.send(command, { abortSignal: ended.signal });
      } finally {
        options.abortSignal.removeEventListener('abort', onAbort);
        // Answered before the file told its end, the request would wait for it, and its connection with it, for ever.
        if (!body.readableEnded) ended.abort();
        body.destroy();
      }
    });
  }

  async #putInParts(
    handle: FileHandle,
    key: BlobKey,
    facts: Facts,
    replace: boolean,
    signal: AbortSignal | undefined,
  ): Promise<'stored' | 'exists'> {
    const { UploadId } = await this.#try(
      (options) => this.#client.send(new CreateMultipartUploadCommand(this.#at(key)), options),
      signal,
    );
    if (UploadId === undefined) throw new Error('the server named no upload for the parts');
    const at = { ...this.#at(key), UploadId };
    try {
      const Parts = await this.#putParts(handle, at, facts.sizeBytes, signal);
      const outcome = await this.#unlessExists(replace, signal, async (condition, options) => {
        const command = new CompleteMultipartUploadCommand({ ...at, ...condition, MultipartUpload: { Parts } });
        await this.#client.send(command, options);
      });
      if (outcome === 'exists') await this.#removeParts(at);
      return outcome;
    } catch (thrown) {
      await this.#removeParts(at);
      // An earlier try may have arrived though its answer did not: then the parts are gone and the blob is there.
      if (nameOf(thrown) === 'NoSuchUpload' && (await this.stat(key, signal)) === facts.sizeBytes) return 'stored';
      throw thrown;
    }
  }

  /** Sends parts, some at a time. The first failure breaks off the others; all have ended when this does. */
  async #putParts(
    handle: FileHandle,
    at: { readonly Bucket: string; readonly Key: string; readonly UploadId: string },
    sizeBytes: number,
    signal: AbortSignal | undefined,
  ): Promise<{ PartNumber: number; ETag: string }[]> {
    const { partSizeBytes, partsAtOnce } = this.#config;
    const count = Math.ceil(sizeBytes / partSizeBytes);
    const parts: { PartNumber: number; ETag: string }[] = [];
    const failed = new AbortController();
    const onAbort = (): void => failed.abort(signal?.reason);
    signal?.addEventListener('abort', onAbort, { once: true });
    let next = 0;
    const work = async (): Promise<void> => {
      while (next < count && !failed.signal.aborted) {
        const index = next++;
        const Body = await readPart(
          handle,
          index * partSizeBytes,
          Math.min(partSizeBytes, sizeBytes - index * partSizeBytes),
        );
        const command = { ...at, PartNumber: index + 1, Body };
        const { ETag } = await this.#try(
          (options) => this.#client.send(new UploadPartCommand(command), options),
          failed.signal,
        );
        if (ETag === undefined) throw new Error('the server named no ETag for a part');
        parts.push({ PartNumber: index + 1, ETag });
      }
    };
    const workers = Array.from({ length: Math.min(partsAtOnce, count) }, () =>
      work().catch((thrown: unknown) => failed.abort(thrown)),
    );
    await Promise.all(workers);
    signal?.removeEventListener('abort', onAbort);
    failed.signal.throwIfAborted();
    return parts.sort((a, b) => a.PartNumber - b.PartNumber);
  }

  /** Runs a write that must not replace, where the server can do that; asks without the condition where it cannot. */
  async #unlessExists(
    replace: boolean,
    signal: AbortSignal | undefined,
    write: (condition: { IfNoneMatch?: '*' }, options: SendOptions) => Promise<void>,
  ): Promise<'stored' | 'exists'> {
    const condition = !replace && this.#conditional ? ({ IfNoneMatch: '*' } as const) : {};
    try {
      await this.#try((options) => write(condition, options), signal);
      return 'stored';
    } catch (thrown) {
      if (condition.IfNoneMatch === undefined) throw thrown;
      // 409: another writer of the same key is under way or was just done.
      if (statusOf(thrown) === 412 || statusOf(thrown) === 409) return 'exists';
      if (statusOf(thrown) !== 501) throw thrown;
      this.#conditional = false;
      this.#log.info({}, 'the S3 server knows no conditional writes; existing blobs are written again');
      return await this.#unlessExists(replace, signal, write);
    }
  }

  /** One request, tried again as configured where that may help. */
  async #try<T>(send: (options: SendOptions) => Promise<T>, signal: AbortSignal | undefined): Promise<T> {
    const { result, release } = await this.#hold(send, signal);
    release();
    return result;
  }

  /**
   * The same for an answer whose body still arrives: it holds its connection
   * until `release`. Waiting for one is done here rather than in the agent's
   * queue, where it would count as slow connecting.
   */
  async #hold<T>(
    send: (options: SendOptions) => Promise<T>,
    signal: AbortSignal | undefined,
  ): Promise<{ readonly result: T; readonly release: () => void }> {
    const abortSignal = signal ?? new AbortController().signal;
    for (let attempt = 1; ; attempt += 1) {
      const release = await this.#connections.take(abortSignal);
      try {
        return { result: await send({ abortSignal }), release };
      } catch (thrown) {
        release();
        abortSignal.throwIfAborted();
        if (attempt >= this.#config.attemptsMax || !mayHelpToRetry(thrown)) throw thrown;
        this.#log.debug({ attempt, ...errorFields(thrown) }, 'a request to the S3 server is tried again');
        await sleep(this.#clock, this.#config.retryMs * 2 ** (attempt - 1), signal);
      }
    }
  }

  /** Ends an upload in parts, so that they take up no room. Failing that, the next start does it. */
  async #removeParts(at: { readonly Bucket: string; readonly Key: string; readonly UploadId: string }): Promise<void> {
    try {
      await this.#try((options) => this.#client.send(new AbortMultipartUploadCommand(at), options), undefined);
    } catch (thrown) {
      if (statusOf(thrown) !== 404) this.#log.warn(errorFields(thrown), 'parts of an upload may be left in the bucket');
    }
  }

  /** What earlier runs began in parts and never finished. */
  async #removeAbandonedParts(signal: AbortSignal): Promise<void> {
    const { bucket: Bucket, prefix: Prefix, abandonedMs } = this.#config;
    const before = this.#clock.now() - abandonedMs;
    let marker: { KeyMarker?: string | undefined; UploadIdMarker?: string | undefined } = {};
    try {
      for (;;) {
        const command = new ListMultipartUploadsCommand({ Bucket, Prefix, ...marker });
        const page = await this.#try((options) => this.#client.send(command, options), signal);
        for (const { Key, UploadId, Initiated } of page.Uploads ?? []) {
          const old = Initiated !== undefined && Initiated.getTime() < before;
          if (old && Key !== undefined && UploadId !== undefined) await this.#removeParts({ Bucket, Key, UploadId });
        }
        if (page.IsTruncated !== true) return;
        marker = { KeyMarker: page.NextKeyMarker, UploadIdMarker: page.NextUploadIdMarker };
      }
    } catch (thrown) {
      if (!signal.aborted) this.#log.warn(errorFields(thrown), 'the bucket cannot be cleared of abandoned parts');
    }
  }

  #at(key: BlobKey): { readonly Bucket: string; readonly Key: string } {
    invariant(parseBlobKey(key) !== undefined, 'a blob key is well formed');
    return { Bucket: this.#config.bucket, Key: this.#config.prefix + key };
  }
}

interface SendOptions {
  readonly abortSignal: AbortSignal;
}

function createClient(config: S3Config, log: Log): S3Client {
  // A notice for developers, about versions to come.
  process.env['AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED'] = 'true';
  const { accessKeyId, secretAccessKey, sessionToken } = config;
  const logger = sdkLogger(log);
  const agent = { keepAlive: true, maxSockets: config.socketsMax };
  return new S3Client({
    region: config.region,
    ...(config.endpoint !== null && { endpoint: config.endpoint }),
    forcePathStyle: config.pathStyle,
    ...(accessKeyId !== null &&
      secretAccessKey !== null && {
        credentials: { accessKeyId, secretAccessKey, ...(sessionToken !== null && { sessionToken }) },
      }),
    // Chunk-signed bodies with trailing checksums are refused by servers other than Amazon's.
    requestChecksumCalculation: 'WHEN_REQUIRED',
    responseChecksumValidation: 'WHEN_REQUIRED',
    // It would open a connection for each upload, outside the pool.
    expectContinueHeader: false,
    maxAttempts: 1,
    logger,
    requestHandler: {
      connectionTimeout: config.connectTimeoutMs,
      // Silence, in either direction: a body that nobody reads loses its connection too.
      socketTimeout: config.requestTimeoutMs,
      httpAgent: agent,
      httpsAgent: agent,
      logger,
    },
  });
}

/** The SDK's own chatter has its requests in it: only its warnings are passed on. */
function sdkLogger(log: Log): Record<'trace' | 'debug' | 'info' | 'warn' | 'error', (...content: unknown[]) => void> {
  const silent = (): void => {};
  const warn = (...content: unknown[]): void => {
    if (typeof content[0] === 'string') log.warn({}, content[0]);
  };
  return { trace: silent, debug: silent, info: silent, warn, error: warn };
}

async function readPart(handle: FileHandle, position: number, sizeBytes: number): Promise<Buffer> {
  const part = Buffer.allocUnsafe(sizeBytes);
  for (let filled = 0; filled < sizeBytes; ) {
    const { bytesRead } = await handle.read(part, filled, sizeBytes - filled, position + filled);
    if (bytesRead === 0) throw new Error('a staged file became shorter while it was stored');
    filled += bytesRead;
  }
  return part;
}
