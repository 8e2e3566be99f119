/**
 * Files by their bare descriptors, for the few steps that every upload takes: a
 * FileHandle costs about as much again as the call itself. Whoever opens closes.
 */
import { close, fsync, open, write } from 'node:fs';
import { promisify } from 'node:util';

export const openBare = promisify(open);
export const writeBare = promisify(write);
export const syncBare = promisify(fsync);
export const closeBare = promisify(close);
