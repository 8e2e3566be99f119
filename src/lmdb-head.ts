/**
 * What the head of an LMDB file says. LMDB maps its file and believes it: one that is truncated, or something else, ends the
 * process without a word. So the head is read before the file is opened.
 */
import { open } from 'node:fs/promises';

export type LmdbHead =
  | { readonly kind: 'missing' }
  | { readonly kind: 'empty' }
  | { readonly kind: 'foreign'; readonly why: string }
  | {
      readonly kind: 'lmdb';
      readonly sizeBytes: number;
      readonly pageBytes: number;
      /** The last page that the first of the two heads counts. Such a page need not have been written. */
      readonly lastPage: number;
      /** Pages that were written with the newest transaction or before it: the roots of its trees. */
      readonly roots: readonly number[];
    };

const MAGIC = 0xbeef_c0de;
const PAGE_BYTES = { min: 512, max: 65_536 } as const;
/** The second head is at the beginning of the second page. Places in either, in bytes. */
const AT = { magic: 24, pageBytes: 48, freeRoot: 88, mainRoot: 136, lastPage: 144, transaction: 152 } as const;
const HEAD_BYTES = 160;
/** In the place of the root of an empty tree. */
const NO_PAGE = 0xffff_ffff_ffff_ffffn;

/** Rejects with what the system says if the file is there and cannot be read. */
export async function readLmdbHead(path: string): Promise<LmdbHead> {
  const file = await open(path, 'r').catch((thrown: NodeJS.ErrnoException) => {
    if (thrown.code === 'ENOENT') return undefined;
    throw thrown;
  });
  if (file === undefined) return { kind: 'missing' };
  try {
    const { size: sizeBytes } = await file.stat();
    if (sizeBytes === 0) return { kind: 'empty' };
    const first = Buffer.alloc(HEAD_BYTES);
    await file.read(first, 0, HEAD_BYTES, 0);
    if (first.readUInt32LE(AT.magic) !== MAGIC) return { kind: 'foreign', why: 'it is not an LMDB file' };
    const pageBytes = first.readUInt32LE(AT.pageBytes);
    if (pageBytes < PAGE_BYTES.min || pageBytes > PAGE_BYTES.max) {
      return { kind: 'foreign', why: 'its page size is impossible' };
    }
    const second = Buffer.alloc(HEAD_BYTES);
    await file.read(second, 0, HEAD_BYTES, pageBytes);
    const newest = second.readBigUInt64LE(AT.transaction) > first.readBigUInt64LE(AT.transaction) ? second : first;
    const roots = [newest.readBigUInt64LE(AT.freeRoot), newest.readBigUInt64LE(AT.mainRoot)];
    return {
      kind: 'lmdb',
      sizeBytes,
      pageBytes,
      lastPage: Number(first.readBigUInt64LE(AT.lastPage)),
      roots: roots.filter((page) => page !== NO_PAGE).map(Number),
    };
  } finally {
    await file.close();
  }
}
