/** What an error of the system means, for a person who reads what a command or a process says. */
import { errorCode } from './errors.js';

const OF_FILES: Readonly<Record<string, string>> = {
  EACCES: 'this user has no permission for it',
  EPERM: 'this user has no permission for it',
  EBUSY: 'something else uses it',
  EDQUOT: 'the quota of its file system is used up',
  EEXIST: 'it is there already',
  EIO: 'its file system cannot read or write it',
  EISDIR: 'it is a folder and not a file',
  ELOOP: 'its links lead in a circle',
  EMFILE: 'this process has too many files open',
  ENAMETOOLONG: 'its name is too long',
  ENFILE: 'this machine has too many files open',
  ENOENT: 'it does not exist',
  ENOSPC: 'its file system is full',
  ENOTDIR: 'a part of it is a file and not a folder',
  EROFS: 'its file system is read-only',
};
const OF_ADDRESSES: Readonly<Record<string, string>> = {
  EACCES: 'this user may not listen there',
  EADDRNOTAVAIL: 'this machine does not have that address',
  ECONNREFUSED: 'nothing listens there',
  ECONNRESET: 'the other side broke the connection off',
  EHOSTUNREACH: 'that machine cannot be reached',
  ENETUNREACH: 'that network cannot be reached',
  ENOTFOUND: 'there is no machine of that name',
  EPIPE: 'the other side broke the connection off',
  ETIMEDOUT: 'it did not answer in time',
};

type Details = { readonly [name in 'path' | 'dest' | 'address' | 'port' | 'hostname' | 'errors']?: unknown };

/** One sentence without a stack. What is no error of the system is said in its own words. */
export function sentenceOf(thrown: unknown): string {
  const message = thrown instanceof Error ? thrown.message : String(thrown);
  const code = errorCode(thrown);
  if (code === 'EADDRINUSE') {
    const address = message.replace(/^listen EADDRINUSE: address already in use /, '');
    return `another process already listens on ${address}; stop it or choose another port in the configuration.`;
  }
  const details: Details = typeof thrown === 'object' && thrown !== null ? thrown : {};
  // Of several addresses of one name, none could be reached.
  if (message === '' && Array.isArray(details.errors) && details.errors.length > 0)
    return sentenceOf(details.errors[0]);
  if (code === undefined) return message;
  if (typeof details.path === 'string') return said(details.path, OF_FILES[code], code) ?? message;
  return said(addressOf(details), OF_ADDRESSES[code], code) ?? message;
}

function said(what: string, meaning: string | undefined, code: string): string | undefined {
  return what === '' || meaning === undefined ? undefined : `${what}: ${meaning} (${code})`;
}

function addressOf({ address, port, hostname }: Details): string {
  const name = [address, hostname].find((each): each is string => typeof each === 'string') ?? '';
  return typeof port === 'number' ? `${name}:${port}` : name;
}
