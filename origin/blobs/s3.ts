/**
 * Blobs as objects of a bucket, on any server that speaks S3. The only file
 * that imports the AWS SDK.
 *
 * Promises: a blob is stored whole or not at all. Its SHA-256 is part of the
 * signed request, so a server that checks signatures refuses other bytes, and a
 * write counts only after the size of the object was read back. Every body is
 * read to its end or destroyed. Every request has a limit on its time, its
 * attempts and its connections.
 *
 * The parts of a large blob are sent here instead of by the SDK's upload
 * library, which cannot cancel the parts under way and does not wait for its
 * own cleanup. Retries are made here too, so that they can be cancelled.
 */

import { randomUUID } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { type FileHandle, open, rm, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
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
import { onAbort, sharedController } from '../../src/abort.js';
import { type Clock, sleep } from '../../src/clock.js';
import { invariant } from '../../src/errors.js';
import type { ByteSpan } from '../../src/http/range.js';
import type { Sha256 } from '../../src/ids.js';
import { errorFields, type Log } from '../../src/log.js';
import { openPrivateFolder } from '../../src/private-folder.js';
import { createSlots, type Slots } from '../../src/slots.js';
import {
  type BlobKey,
  type BlobListing,
  type BlobStore,
  type ListPrefix,
  parseBlobKey,
  type ReadOutcome,
} from './blob-store.js';
import type { S3Config } from './config.js';
import { inFolder } from './files.js';
import { isMissing, isWorthRetrying, mayHaveSucceeded, nameOf, readOutcomeOf, statusOf } from './s3-answers.js';
import { storageFault } from './storage-fault.js';

export interface S3StoreDeps {
  readonly config: S3Config;
  readonly stageFolder: string;
  readonly clock: Clock;
  readonly log: Log;
}

/** Does not wait for the server, which may start later: readiness shows whether it answers. */
export async function openS3Store(deps: S3StoreDeps): Promise<BlobStore> {
  const stageFolder = resolve(deps.stageFolder);
  await openPrivateFolder(stageFolder);
  return new S3Store({ ...deps, stageFolder });
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
  readonly #cleanup: Promise<void>;

  constructor({ config, stageFolder, clock, log }: S3StoreDeps) {
    this.region = config.region;
    this.stageFolder = stageFolder;
    this.#config = config;
    this.#clock = clock;
    this.#log = log.child({ part: 'blobs' });
    this.#client = createClient(config, this.#log);
    this.#connections = createSlots(config.socketsMax);
    this.#cleanup = this.#removeAbandonedParts(this.#closing.signal);
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
    const command = { ...this.#locationOf(key), ...range };
    try {
      const { result, release } = await this.#open(
        (options) => this.#client.send(new GetObjectCommand(command), options),
        signal,
      );
      return readOutcomeOf(result, span, release);
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
    const location = this.#locationOf(key);
    try {
      const head = await this.#request(
        (options) => this.#client.send(new HeadObjectCommand(location), options),
        signal,
      );
      return head.ContentLength;
    } catch (thrown) {
      if (isMissing(thrown)) return undefined;
      throw storageFault(thrown, signal);
    }
  }

  /** The size of a blob, asked for once. Undefined if there is none, or no answer. */
  async #lookUp(key: BlobKey, signal: AbortSignal | undefined): Promise<number | undefined> {
    const location = this.#locationOf(key);
    try {
      const send = (options: SendOptions) => this.#client.send(new HeadObjectCommand(location), options);
      const { result, release } = await this.#open(send, signal, 1);
      release();
      return result.ContentLength;
    } catch {
      return undefined;
    }
  }

  async remove(key: BlobKey, signal?: AbortSignal): Promise<void> {
    const location = this.#locationOf(key);
    try {
      await this.#request((options) => this.#client.send(new DeleteObjectCommand(location), options), signal);
    } catch (thrown) {
      if (!isMissing(thrown)) throw storageFault(thrown, signal);
    }
  }

  async *list(prefix: ListPrefix, signal?: AbortSignal): AsyncIterable<BlobListing> {
    const { bucket: Bucket, prefix: before } = this.#config;
    let ContinuationToken: string | undefined;
    do {
      const command = new ListObjectsV2Command({ Bucket, Prefix: before + prefix, ContinuationToken });
      const page = await this.#request((options) => this.#client.send(command, options), signal).catch(
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
    const location = { Bucket: this.#config.bucket, Key: `${this.#config.prefix}probe/${randomUUID()}` };
    const written = randomUUID();
    try {
      await this.#probeStage(written);
      await this.#request(
        (options) => this.#client.send(new PutObjectCommand({ ...location, Body: written }), options),
        signal,
      );
      const read = await this.#request(async (options) => {
        const { Body } = await this.#client.send(new GetObjectCommand(location), options);
        return await Body?.transformToString();
      }, signal);
      if (read !== written) throw new Error('other bytes were read than written');
      await this.#request((options) => this.#client.send(new DeleteObjectCommand(location), options), signal);
    } catch (thrown) {
      throw storageFault(thrown, signal);
    }
  }

  async #probeStage(written: string): Promise<void> {
    const path = join(this.stageFolder, `.probe-${written}`);
    try {
      await inFolder(this.stageFolder, () => writeFile(path, written, { flag: 'wx', mode: 0o600 }));
    } finally {
      await rm(path, { force: true }).catch(() => undefined);
    }
  }

  async freeBytes(): Promise<null> {
    return null;
  }

  async close(): Promise<void> {
    this.#closing.abort(new Error('the blob store is closed'));
    await this.#cleanup;
    this.#client.destroy();
  }

  async #store(stagedPath: string, key: BlobKey, facts: Facts, signal: AbortSignal | undefined): Promise<void> {
    const handle = await open(stagedPath, 'r');
    try {
      const { size } = await handle.stat();
      if (size !== facts.sizeBytes) {
        throw new Error(`a staged file has ${size} bytes instead of ${facts.sizeBytes}`);
      }
      const inParts = facts.sizeBytes > this.#config.multipartAboveBytes;
      if (inParts) await this.#putInParts(handle, key, facts, signal);
      else await this.#putWhole(stagedPath, key, facts, signal);
    } catch (thrown) {
      signal?.throwIfAborted();
      // The bytes may be stored although the answer was lost.
      if (!mayHaveSucceeded(thrown) || (await this.#lookUp(key, signal)) !== facts.sizeBytes) throw thrown;
      this.#log.info({ key, ...errorFields(thrown) }, 'an upload whose answer was lost is in the bucket');
      return;
    } finally {
      await handle.close();
    }
    const storedBytes = await this.stat(key, signal);
    if (storedBytes === facts.sizeBytes) return;
    await this.remove(key, signal);
    throw new Error(`the server stored ${storedBytes ?? 'none'} of ${facts.sizeBytes} bytes`);
  }

  async #putWhole(stagedPath: string, key: BlobKey, facts: Facts, signal: AbortSignal | undefined): Promise<void> {
    await this.#request(async (options) => {
      const body = createReadStream(stagedPath, { end: facts.sizeBytes - 1 });
      const ended = new AbortController();
      const stopListening = onAbort(options.abortSignal, () => ended.abort(options.abortSignal.reason));
      // The SDK pipes the file and ignores its errors.
      body.on('error', (error) => ended.abort(error));
      const command = new PutObjectCommand({
        ...this.#locationOf(key),
        Body: body,
        ContentLength: facts.sizeBytes,
      });
      command.middlewareStack.add(
        (next) => (args) => {
          // The signer uses the hash in this field. Without it the stream would stay unsigned.
          (args.request as { headers: Record<string, string> }).headers['x-amz-content-sha256'] = facts.sha256;
          return next(args);
        },
        { step: 'build', name: 'knownPayloadHash' },
      );
      try {
        await this.#client.send(command, { abortSignal: ended.signal });
      } finally {
        stopListening();
        // After a response that came before the end of the file, the request would keep its connection and wait for ever.
        if (!body.readableEnded) ended.abort();
        body.destroy();
      }
    }, signal);
  }

  async #putInParts(handle: FileHandle, key: BlobKey, facts: Facts, signal: AbortSignal | undefined): Promise<void> {
    const { UploadId } = await this.#request(
      (options) => this.#client.send(new CreateMultipartUploadCommand(this.#locationOf(key)), options),
      signal,
    );
    if (UploadId === undefined) throw new Error('the server gave no id for an upload in parts');
    const location = { ...this.#locationOf(key), UploadId };
    try {
      const Parts = await this.#putParts(handle, location, facts.sizeBytes, signal);
      const command = new CompleteMultipartUploadCommand({ ...location, MultipartUpload: { Parts } });
      await this.#request((options) => this.#client.send(command, options), signal);
    } catch (thrown) {
      // If the parts have become a blob, there is nothing to remove.
      if (nameOf(thrown) !== 'NoSuchUpload') await this.#removeParts(location);
      throw thrown;
    }
  }

  /** Sends the parts, several at once. The first failure cancels the others. All have ended when this ends. */
  async #putParts(
    handle: FileHandle,
    location: { readonly Bucket: string; readonly Key: string; readonly UploadId: string },
    sizeBytes: number,
    signal: AbortSignal | undefined,
  ): Promise<{ PartNumber: number; ETag: string }[]> {
    const { partSizeBytes, partsAtOnce } = this.#config;
    const count = Math.ceil(sizeBytes / partSizeBytes);
    const parts: { PartNumber: number; ETag: string }[] = [];
    const failed = new AbortController();
    const stopListening = onAbort(signal, () => failed.abort(signal?.reason));
    let next = 0;
    const work = async (): Promise<void> => {
      while (next < count && !failed.signal.aborted) {
        const index = next++;
        const Body = await readPart(
          handle,
          index * partSizeBytes,
          Math.min(partSizeBytes, sizeBytes - index * partSizeBytes),
        );
        const command = { ...location, PartNumber: index + 1, Body };
        const { ETag } = await this.#request(
          (options) => this.#client.send(new UploadPartCommand(command), options),
          failed.signal,
        );
        if (ETag === undefined) throw new Error('the server gave no ETag for a part');
        parts.push({ PartNumber: index + 1, ETag });
      }
    };
    const workers = Array.from({ length: Math.min(partsAtOnce, count) }, () =>
      work().catch((thrown: unknown) => failed.abort(thrown)),
    );
    await Promise.all(workers);
    stopListening();
    failed.signal.throwIfAborted();
    return parts.sort((a, b) => a.PartNumber - b.PartNumber);
  }

  /** Makes one request, with further attempts as configured if they may help. */
  async #request<T>(send: (options: SendOptions) => Promise<T>, signal: AbortSignal | undefined): Promise<T> {
    const { result, release } = await this.#open(send, signal);
    release();
    return result;
  }

  /**
   * The same for a response whose body still arrives: it keeps its connection until `release`. A request waits for a
   * connection here and not in the queue of the agent, where the wait would count as connecting.
   */
  async #open<T>(
    send: (options: SendOptions) => Promise<T>,
    signal: AbortSignal | undefined,
    attemptsMax = this.#config.attemptsMax,
  ): Promise<{ readonly result: T; readonly release: () => void }> {
    const abortSignal = signal ?? new AbortController().signal;
    for (let attempt = 1; ; attempt += 1) {
      const release = await this.#connections.take(abortSignal);
      try {
        return { result: await send({ abortSignal }), release };
      } catch (thrown) {
        release();
        abortSignal.throwIfAborted();
        if (attempt >= attemptsMax || !isWorthRetrying(thrown)) throw thrown;
        this.#log.debug({ attempt, ...errorFields(thrown) }, 'a request to the S3 server is tried again');
        await sleep(this.#clock, this.#config.retryMs * 2 ** (attempt - 1), signal);
      }
    }
  }

  /** Aborts an upload in parts, so that they take no space. If that fails, a later start removes them. */
  async #removeParts(location: {
    readonly Bucket: string;
    readonly Key: string;
    readonly UploadId: string;
  }): Promise<void> {
    try {
      await this.#request(
        (options) => this.#client.send(new AbortMultipartUploadCommand(location), options),
        undefined,
      );
    } catch (thrown) {
      if (statusOf(thrown) !== 404) this.#log.warn(errorFields(thrown), 'parts of an upload may be left in the bucket');
    }
  }

  /** Removes what earlier processes uploaded in parts and never finished. */
  async #removeAbandonedParts(signal: AbortSignal): Promise<void> {
    const { bucket: Bucket, prefix: Prefix, abandonedMs } = this.#config;
    const before = this.#clock.now() - abandonedMs;
    let marker: { KeyMarker?: string | undefined; UploadIdMarker?: string | undefined } = {};
    try {
      for (;;) {
        const command = new ListMultipartUploadsCommand({ Bucket, Prefix, ...marker });
        const page = await this.#request((options) => this.#client.send(command, options), signal);
        for (const { Key, UploadId, Initiated } of page.Uploads ?? []) {
          const old = Initiated !== undefined && Initiated.getTime() < before;
          if (old && Key !== undefined && UploadId !== undefined) await this.#removeParts({ Bucket, Key, UploadId });
        }
        if (page.IsTruncated !== true) return;
        marker = { KeyMarker: page.NextKeyMarker, UploadIdMarker: page.NextUploadIdMarker };
      }
    } catch (thrown) {
      if (!signal.aborted) this.#log.warn(errorFields(thrown), 'abandoned parts cannot be removed from the bucket');
    }
  }

  #locationOf(key: BlobKey): { readonly Bucket: string; readonly Key: string } {
    invariant(parseBlobKey(key) !== undefined, 'a blob key is well formed');
    return { Bucket: this.#config.bucket, Key: this.#config.prefix + key };
  }
}

interface SendOptions {
  readonly abortSignal: AbortSignal;
}

function createClient(config: S3Config, log: Log): S3Client {
  // The SDK would print a notice for developers about future versions.
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
    // Servers other than Amazon's refuse chunk-signed bodies with trailing checksums.
    requestChecksumCalculation: 'WHEN_REQUIRED',
    responseChecksumValidation: 'WHEN_REQUIRED',
    // Otherwise the SDK would open a connection outside the pool for each upload.
    expectContinueHeader: false,
    maxAttempts: 1,
    logger,
    requestHandler: {
      connectionTimeout: config.connectTimeoutMs,
      // For silence in either direction: a body that nobody reads loses its connection too.
      socketTimeout: config.requestTimeoutMs,
      httpAgent: agent,
      httpsAgent: agent,
      logger,
    },
  });
}

/** The SDK's debug lines show its requests, so only its warnings are passed on. */
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
