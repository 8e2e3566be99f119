/**
 * Refuses a metadata file that would end the process as soon as it is read: LMDB maps its file and believes it. Damage
 * behind the head is not looked for; fsck finds that of records.
 */
import { type LmdbHead, readLmdbHead } from '../../../src/lmdb-head.js';

/** Pages at the end that a transaction has freed again are counted, and not written. They are few. */
const UNWRITTEN_MAX = 1_024;

export async function refuseBroken(path: string): Promise<void> {
  const why = faultOf(await readLmdbHead(path));
  if (why !== undefined) throw new Error(`${path} cannot be opened: ${why}; restore the metadata from a backup`);
}

function faultOf(head: LmdbHead): string | undefined {
  if (head.kind === 'foreign') return head.why;
  if (head.kind !== 'lmdb') return undefined;
  const { sizeBytes, pageBytes, lastPage, roots } = head;
  const pages = Math.floor(sizeBytes / pageBytes);
  const isCut = roots.some((root) => root >= pages) || lastPage + 1 > pages + UNWRITTEN_MAX;
  return isCut ? `it is truncated to ${pages} of ${lastPage + 1} pages` : undefined;
}
