/**
 * Keeps a stage folder for one process: an origin that starts removes what is in it, and so would remove what another one
 * is receiving. The lock is a file in a folder of its own, which nobody clears. On a full or broken disk an origin must
 * start all the same, for takedowns: then it does without, and clears nothing.
 */
import { join } from 'node:path';
import { errorFields, type Log } from '../../src/log.js';
import { openPrivateFolder } from '../../src/private-folder.js';
import { lockWriter } from '../meta/lmdb/writer-lock.js';
import { StoreInUse } from '../meta/store.js';

export interface StageLock {
  /** False if it cannot be written. */
  readonly isHeld: boolean;
  /** May be called twice. */
  close(): Promise<void>;
}

const FOLDER = 'lock';

/** Rejects with FolderInUse while a living process of this machine has it. */
export async function lockStage(stageFolder: string, randomName: () => string, log: Log): Promise<StageLock> {
  try {
    const folder = join(stageFolder, FOLDER);
    await openPrivateFolder(folder);
    const lock = await lockWriter(folder, randomName, `the stage folder ${stageFolder}`);
    return { isHeld: true, close: () => lock.release() };
  } catch (thrown) {
    if (thrown instanceof StoreInUse) throw thrown;
    log.warn(errorFields(thrown), 'the stage folder cannot be locked, and is not cleared');
    return { isHeld: false, close: () => Promise.resolve() };
  }
}
