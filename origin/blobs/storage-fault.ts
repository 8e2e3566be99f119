/** Turns what a storage threw into a Fault. The reason stays in the cause, for the log. */
import { errorCode, Fault } from '../../src/errors.js';

const FULL = new Set(['ENOSPC', 'EDQUOT', 'EFBIG', 'InsufficientStorage', 'QuotaExceeded', 'XMinioStorageFull']);

/** A Fault for anything thrown, except an abort by the caller, which stays as it is. */
export function storageFault(thrown: unknown, signal?: AbortSignal): unknown {
  if (thrown instanceof Fault || signal?.aborted === true) return thrown;
  const names = [errorCode(thrown), thrown instanceof Error ? thrown.name : undefined];
  return names.some((name) => FULL.has(name ?? ''))
    ? new Fault('storage_full', 'The storage has no room left.', { cause: thrown })
    : new Fault('storage_unavailable', 'The storage cannot be used at the moment.', { cause: thrown });
}
