/**
 * Pieces of contents that were read from disk last, so that the next reader needs
 * no disk: whole bodies that are read in one piece, and aligned pieces of larger
 * ones. Bounded in bytes: what was used longest ago goes first.
 *
 * Leaves to others: whether the bytes are correct.
 */
import { KeyIndex } from '../key-index.js';

export class Pieces {
  readonly #maxBytes: number;
  readonly #pieces = new Map<string, Buffer>();
  readonly #byContent = new KeyIndex<string, string>();
  #usedBytes = 0;

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  get usedBytes(): number {
    return this.#usedBytes;
  }

  get(sha256: string, number: number): Buffer | undefined {
    const name = nameOf(sha256, number);
    const piece = this.#pieces.get(name);
    if (piece === undefined) return undefined;
    this.#pieces.delete(name);
    this.#pieces.set(name, piece);
    return piece;
  }

  /** A piece that would take more than a small part of the room is not kept. */
  put(sha256: string, number: number, bytes: Buffer): void {
    if (bytes.length > this.#maxBytes / 16) return;
    const name = nameOf(sha256, number);
    this.#remove(name);
    this.#pieces.set(name, bytes);
    this.#byContent.add(sha256, name);
    this.#usedBytes += bytes.length;
    for (const oldest of this.#pieces.keys()) {
      if (this.#usedBytes <= this.#maxBytes) break;
      this.#remove(oldest);
    }
  }

  drop(sha256: string): void {
    for (const name of this.#byContent.membersOf(sha256)) this.#remove(name);
  }

  dropAll(): void {
    for (const name of this.#pieces.keys()) this.#remove(name);
  }

  #remove(name: string): void {
    const piece = this.#pieces.get(name);
    if (piece === undefined) return;
    this.#pieces.delete(name);
    this.#byContent.remove(name.slice(0, name.indexOf(' ')), name);
    this.#usedBytes -= piece.length;
  }
}

function nameOf(sha256: string, number: number): string {
  return `${sha256} ${number}`;
}
