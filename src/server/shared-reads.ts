/**
 * Reads many connections into one buffer. Node gives each read a buffer of 64 KiB
 * of its own and a stream that delivers it, which costs as much as the rest of a
 * small request; with `onread` (node:net) it writes into a given buffer instead.
 * Servers cannot ask for `onread`, so the handle of an accepted socket is given to
 * a second socket that does.
 *
 * That a socket can be made of a handle is not documented. It is tried on the
 * versions below by a test; elsewhere, and for whatever is not a bare TCP socket,
 * `data` events are used.
 *
 * Promises: whoever reads gets the bytes of its own connection alone, and only
 * during the call, because the memory is used again for the next one. Node's HTTP
 * parser is such a reader: it copies what it keeps, heads and bodies alike.
 */
import { Socket } from 'node:net';

/** The bytes are the first `length` ones of `buffer`. They are to be copied or used up before the call returns. */
export type Receive = (buffer: Buffer, length: number) => void;

export interface Reading {
  readonly socket: Socket;
  /** Gives what arrives from now on to `receive` and no longer to the socket's own listeners. To be called once. */
  readonly start: (receive: Receive) => void;
  /** Ends that: what arrives from now on are `data` of the socket, as of every other. */
  readonly release: () => void;
  /** The same, for listeners to `data` that keep nothing of it: its memory is used again after the event. */
  readonly lend: () => void;
}

const OLDEST = 20;
const NEWEST = 26;
const [major = 0] = process.versions.node.split('.').map(Number);
const IS_TRIED = major >= OLDEST && major <= NEWEST;

const BUFFER_BYTES = 65_536;
let shared: Buffer | undefined;

/** What is used of a socket beside its documented members. */
interface Internals {
  _handle: { readonly useUserBuffer?: unknown } | null;
  _server: unknown;
  server: unknown;
}

/** To be called when a server has just accepted the socket, before anyone else uses it. Use the socket of the result in its place. */
export function shareReads(accepted: Socket, isTried = IS_TRIED): Reading {
  const first = accepted as unknown as Internals;
  const handle = first._handle;
  const fits = accepted.constructor === Socket && typeof handle?.useUserBuffer === 'function';
  return isTried && fits && accepted.bytesRead === 0 ? withHandleOf(accepted) : unshared(accepted);
}

/** Reads by `data` events. */
export function unshared(socket: Socket): Reading {
  let onData: ((bytes: Buffer) => void) | undefined;
  const release = (): void => {
    if (onData !== undefined) socket.off('data', onData);
  };
  return {
    socket,
    start(receive) {
      onData = (bytes) => receive(bytes, bytes.length);
      socket.on('data', onData);
    },
    release,
    lend: release,
  };
}

function withHandleOf(accepted: Socket): Reading {
  const first = accepted as unknown as Internals;
  const handle = first._handle;
  let receiver: Receive | undefined;
  let lent = false;
  shared ??= Buffer.allocUnsafeSlow(BUFFER_BYTES);
  const options = {
    handle,
    allowHalfOpen: accepted.allowHalfOpen,
    readableHighWaterMark: accepted.readableHighWaterMark,
    writableHighWaterMark: accepted.writableHighWaterMark,
    onread: {
      buffer: shared,
      callback(length: number, buffer: Buffer): boolean {
        if (receiver !== undefined) {
          receiver(buffer, length);
          return true;
        }
        const bytes = buffer.subarray(0, length);
        // What the socket would have to keep until somebody reads it is a copy.
        if (!lent || socket.readableFlowing !== true || socket.readableLength > 0)
          return socket.push(Buffer.from(bytes));
        socket.emit('data', bytes);
        return true;
      },
    },
  };
  // The server counts a connection until the socket that knows the server is destroyed.
  const { _server: owner, server } = first;
  first._handle = null;
  first._server = null;
  const socket = new Socket(options);
  const second = socket as unknown as Internals;
  second._server = owner;
  second.server = server;
  return {
    socket,
    start(receive) {
      receiver = receive;
    },
    release() {
      receiver = undefined;
    },
    lend() {
      receiver = undefined;
      lent = true;
    },
  };
}
