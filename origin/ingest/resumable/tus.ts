/**
 * The tus protocol, version 1.0.0: what the fields of a request ask for, whether
 * the state of the upload allows it, and which fields answer. Pure.
 *
 * A request that the protocol refuses throws a Fault. Leaves to others who may
 * use an upload, for how long, the bytes and their checksum.
 */
import { Fault } from '../../../src/errors.js';
import type { RequestHead } from '../../../src/http/conditional.js';
import type { HeaderList } from '../../../src/http/reply.js';
import { essenceOf } from '../../../src/media/types.js';
import { tooLarge } from '../admit.js';
import { CHECKSUM_ALGORITHMS, type Checksum, readChecksum } from './checksum.js';
import { readMetadata } from './metadata.js';
import type { UnfinishedUpload } from './upload-record.js';

export const UPLOADS_PATH = '/v1/uploads';
export const TUS_VERSION = '1.0.0';
export const TUS_EXTENSIONS = [
  'creation',
  'creation-with-upload',
  'creation-defer-length',
  'termination',
  'expiration',
  'checksum',
  'concatenation',
] as const;

/** Fields of the reply to OPTIONS. */
export function tusCapabilities(sizeMaxBytes: number): HeaderList {
  return [
    ['tus-resumable', TUS_VERSION],
    ['tus-version', TUS_VERSION],
    ['tus-extension', TUS_EXTENSIONS.join(',')],
    ['tus-max-size', String(sizeMaxBytes)],
    ['tus-checksum-algorithm', CHECKSUM_ALGORITHMS.join(',')],
  ];
}

/** Core, Tus-Resumable: a request in another version is answered 412, and not processed. */
export function requireVersion(request: RequestHead): void {
  if (request.header('tus-resumable') === TUS_VERSION) return;
  throw new Fault('precondition_failed', `Send Tus-Resumable: ${TUS_VERSION}.`, {
    headers: { 'tus-version': TUS_VERSION },
  });
}

/**
 * The method that a request means (core, X-HTTP-Method-Override). Only POST can
 * stand for another one: a proxy may repeat or cache a request whose method is
 * safe.
 */
export function methodOf(request: RequestHead): string {
  return request.method === 'POST' ? (request.header('x-http-method-override') ?? 'POST') : request.method;
}

/** What POST is to create. */
export type Creation =
  | {
      readonly kind: 'whole' | 'partial';
      /** Null: the length is given later. */
      readonly sizeBytes: number | null;
      readonly metadata: string;
      /** The first bytes, if the request has a body. */
      readonly first: Appending | undefined;
    }
  | {
      readonly kind: 'final';
      readonly partialIds: readonly string[];
      /** As received, because HEAD returns it. */
      readonly concat: string;
      readonly metadata: string;
    };

/** The part of a request that the protocol reads. */
export interface TusRequest extends RequestHead {
  /** Null for a body of unknown length, 0 for none. */
  readonly body: { readonly sizeBytes: number | null };
}

/** Creation, and Concatenation. */
export function readCreation(request: TusRequest, sizeMaxBytes: number): Creation {
  const hasBody = request.body.sizeBytes !== 0;
  const metadata = readMetadata(request.header('upload-metadata'));
  const concat = request.header('upload-concat')?.trim();
  if (concat?.startsWith(FINAL) === true) {
    if (request.header('upload-length') !== undefined || request.header('upload-defer-length') !== undefined) {
      throw new Fault('malformed', 'A final upload has the length of its partial uploads. Send no length.');
    }
    if (hasBody) throw new Fault('malformed', 'A final upload has the bytes of its partial uploads.');
    return { kind: 'final', partialIds: partialIdsIn(concat), concat, metadata };
  }
  if (concat !== undefined && concat !== 'partial') {
    throw new Fault('malformed', 'Upload-Concat is `partial`, or `final;` and a list of partial uploads.');
  }
  const sizeBytes = lengthOfCreation(request, sizeMaxBytes);
  const first = hasBody ? readChunk(request, sizeBytes, 0, sizeMaxBytes) : undefined;
  return { kind: concat ?? 'whole', sizeBytes, metadata, first };
}

function lengthOfCreation(request: RequestHead, sizeMaxBytes: number): number | null {
  const length = request.header('upload-length');
  const deferred = request.header('upload-defer-length');
  if ((length === undefined) === (deferred === undefined) || (deferred !== undefined && deferred !== '1')) {
    throw new Fault('malformed', 'Send either Upload-Length or Upload-Defer-Length: 1.');
  }
  return length === undefined ? null : readLength(length, sizeMaxBytes);
}

function readLength(field: string, sizeMaxBytes: number): number {
  const length = readNumber(field, 'Upload-Length');
  if (length > sizeMaxBytes) throw tooLarge(sizeMaxBytes);
  return length;
}

/** Infinity for a number that is too large to be exact. */
function readNumber(field: string | undefined, name: string): number {
  if (field === undefined || !/^\d+$/.test(field)) throw new Fault('malformed', `${name} is a number of bytes.`);
  const value = Number(field);
  return Number.isSafeInteger(value) ? value : Number.POSITIVE_INFINITY;
}

const FINAL = 'final;';

/** The ids in the field Upload-Concat of a final upload. The URLs in it may be relative, or those of an edge. */
export function partialIdsIn(concat: string): readonly string[] {
  const urls = concat.slice(FINAL.length).split(' ');
  const ids = urls.filter((url) => url !== '').map(uploadIdIn);
  if (ids.length === 0) throw new Fault('malformed', 'A final upload names its partial uploads.');
  if (new Set(ids).size < ids.length) throw new Fault('malformed', 'A final upload names each partial upload once.');
  return ids;
}

function uploadIdIn(url: string): string {
  const [, id] = /(?:^|\/)uploads\/([0-9a-f]{32})$/.exec(url) ?? [];
  if (id === undefined) throw notPartial();
  return id;
}

/** One answer for everything that cannot be joined, so that nobody learns of the uploads of others. */
export function notPartial(): Fault {
  return new Fault('malformed', 'A final upload is made of complete partial uploads of your own, each used once.');
}

export function isComplete(upload: UnfinishedUpload, offset: number): boolean {
  return upload.sizeBytes === offset;
}

/** What a request is to append. */
export interface Appending {
  /** The length of the upload from now on; null while it is deferred. */
  readonly sizeBytes: number | null;
  /** The most bytes that the body may have. */
  readonly roomBytes: number;
  readonly checksum: Checksum | undefined;
}

/** Core, PATCH, for an upload that has `offset` bytes. */
export function readAppending(
  request: TusRequest,
  { sizeBytes }: Pick<UnfinishedUpload, 'sizeBytes'>,
  offset: number,
  sizeMaxBytes: number,
): Appending {
  requireChunkType(request);
  if (readNumber(request.header('upload-offset'), 'Upload-Offset') !== offset) {
    throw new Fault('conflict', 'The upload is at another offset.', { headers: { 'upload-offset': String(offset) } });
  }
  const lengthBytes = lengthOfAppending(request, sizeBytes, offset, sizeMaxBytes);
  return readChunk(request, lengthBytes, offset, sizeMaxBytes);
}

/** Creation: a length that was deferred is given once. Giving it again is no change. */
function lengthOfAppending(
  request: RequestHead,
  known: number | null,
  offset: number,
  sizeMaxBytes: number,
): number | null {
  const field = request.header('upload-length');
  if (field === undefined) return known;
  const length = readLength(field, sizeMaxBytes);
  if (known !== null && known !== length) throw new Fault('malformed', 'The upload has another length.');
  if (length < offset) throw new Fault('malformed', 'The upload has more bytes already.');
  return length;
}

/** Core, PATCH; Creation With Upload. */
function readChunk(request: TusRequest, sizeBytes: number | null, offset: number, sizeMaxBytes: number): Appending {
  requireChunkType(request);
  const roomBytes = (sizeBytes ?? sizeMaxBytes) - offset;
  if ((request.body.sizeBytes ?? 0) > roomBytes) throw beyond(sizeBytes, sizeMaxBytes);
  return { sizeBytes, roomBytes, checksum: readChecksum(request.header('upload-checksum')) };
}

function requireChunkType(request: RequestHead): void {
  if (essenceOf(request.header('content-type') ?? '') === 'application/offset+octet-stream') return;
  throw new Fault('type_refused', 'The body of an upload has the Content-Type application/offset+octet-stream.');
}

/** The Fault for a body that goes beyond the end of an upload of this length, or beyond the limit if it has none yet. */
export function beyond(sizeBytes: number | null, sizeMaxBytes: number): Fault {
  return sizeBytes === null
    ? tooLarge(sizeMaxBytes)
    : new Fault('too_large', 'The body goes beyond the end of the upload.');
}

/** What every reply to POST, HEAD and PATCH says of the upload. */
export function stateFields({ role, mediaId, expiresAt }: UnfinishedUpload, offset: number): HeaderList {
  return [
    ['tus-resumable', TUS_VERSION],
    ['cache-control', 'no-store'],
    ['upload-offset', String(offset)],
    ...(role.kind === 'whole' ? [] : ([['upload-concat', role.kind === 'final' ? role.concat : 'partial']] as const)),
    // Expiration: while the upload is not finished.
    ...(mediaId === null ? ([['upload-expires', new Date(expiresAt).toUTCString()]] as const) : []),
  ];
}

/** The length, as POST and HEAD give it. */
export function lengthField({ sizeBytes }: UnfinishedUpload): HeaderList[number] {
  return sizeBytes === null ? ['upload-defer-length', '1'] : ['upload-length', String(sizeBytes)];
}

/** The metadata, as HEAD gives them. */
export function metadataFields({ metadata }: UnfinishedUpload): HeaderList {
  return metadata === '' ? [] : [['upload-metadata', metadata]];
}
