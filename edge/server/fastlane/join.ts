/**
 * Writes a head and a small body in one piece. The memory in which they are joined
 * is used again, which saves an allocation for each answer.
 *
 * Promises: memory of which the system, or TLS, has not taken every byte is left
 * to its connection and not used again, so that no answer overwrites another.
 */
import type { Socket } from 'node:net';
import type { WrittenHead } from './write-head.js';

/** The largest body that is joined with its head. */
export const JOINED_MAX_BYTES = 65_536;

export interface Joiner {
  write(socket: Socket, head: WrittenHead, body: Uint8Array): void;
}

/** Several, since a client that reads slowly keeps one. */
const SIZES = [4_096, 20_480, 69_632] as const;

/** For plain connections. One for all of them. */
export function createJoiner(): Joiner {
  const scratch: (Buffer | undefined)[] = [];
  return {
    write(socket, head, body) {
      const sizeBytes = head.sizeBytes + body.byteLength;
      const at = SIZES.findIndex((size) => sizeBytes <= size);
      const bytes = scratch[at] ?? Buffer.allocUnsafeSlow(SIZES[at] ?? sizeBytes);
      join(bytes, head, body);
      socket.write(sizeBytes === bytes.length ? bytes : bytes.subarray(0, sizeBytes));
      if (at >= 0) scratch[at] = socket.writableLength === 0 ? bytes : undefined;
    },
  };
}

/** Memory that is lent to one answer, and the part of it that is the answer. */
export interface Lent {
  readonly memory: Buffer;
  readonly answer: Buffer;
}

/** For connections over TLS, which tell only later that they have taken an answer. One for all of them. */
export interface Lender {
  join(head: WrittenHead, body: Uint8Array): Lent;
  /** May be called once TLS has taken the whole answer. Memory that is not given back is not used again. */
  giveBack(lent: Lent): void;
}

/** Of each size. More answers than these are rarely on their way at once. */
const FREE_MAX = 32;

export function createLender(): Lender {
  const free = new Map<number, Buffer[]>(SIZES.map((size) => [size, []]));
  return {
    join(head, body) {
      const sizeBytes = head.sizeBytes + body.byteLength;
      const size = SIZES.find((each) => sizeBytes <= each) ?? sizeBytes;
      const memory = free.get(size)?.pop() ?? Buffer.allocUnsafeSlow(size);
      join(memory, head, body);
      return { memory, answer: sizeBytes === size ? memory : memory.subarray(0, sizeBytes) };
    },
    giveBack({ memory }) {
      const same = free.get(memory.length);
      if (same !== undefined && same.length < FREE_MAX) same.push(memory);
    },
  };
}

export const NOTHING = Buffer.alloc(0);

/** Head and body in one new buffer. */
export function joined(head: WrittenHead, body: Uint8Array): Buffer {
  const bytes = Buffer.allocUnsafe(head.sizeBytes + body.byteLength);
  join(bytes, head, body);
  return bytes;
}

/** A head and a large body, without copying the body. */
export function writeBoth(
  socket: Socket,
  head: WrittenHead,
  body: Uint8Array,
  onWritten?: (broken?: Error | null) => void,
): void {
  socket.cork();
  socket.write(joined(head, NOTHING));
  socket.write(body, onWritten);
  socket.uncork();
}

function join(bytes: Buffer, { shared, own, sizeBytes }: WrittenHead, body: Uint8Array): void {
  bytes.set(shared);
  bytes.write(own, shared.length, 'latin1');
  if (body.byteLength > 0) bytes.set(body, sizeBytes);
}
