/**
 * Estimates how often keys were seen recently, up to 15 times: a count-min
 * sketch. All counters are halved after a number of additions, so that old uses
 * count less and less.
 * (G. Cormode, S. Muthukrishnan, An Improved Data Stream Summary, 2005; aging as
 * in G. Einziger et al., TinyLFU, ACM ToS 13(4), 2017.)
 */

const ROWS = 4;
export const COUNT_MAX = 15;
const FIRST_WIDTH = 1_024;
const WIDTH_MAX = 2 ** 24;
/**
 * Additions per counter of a row until all are halved. Less than the paper's ten: in a chat, media
 * are popular for days only.
 */
const SAMPLE_FACTOR = 2;

export class FrequencySketch {
  /** One row after the other; one byte for each counter. */
  #counters = new Uint8Array(ROWS * FIRST_WIDTH);
  #width = FIRST_WIDTH;
  #additions = 0;
  /** A power of two. */
  readonly #widthMax: number;

  constructor(widthMax = WIDTH_MAX) {
    this.#widthMax = widthMax;
  }

  /** Makes the sketch wide enough for this many keys. Doubling changes no estimate. */
  fit(keys: number): void {
    while (this.#width < keys && this.#width < this.#widthMax) this.#double();
  }

  add(key: string): void {
    const hash = hashOf(key);
    let grew = false;
    for (let row = 0; row < ROWS; row += 1) {
      const at = this.#index(hash, row);
      const count = this.#counters[at] ?? 0;
      if (count < COUNT_MAX) {
        this.#counters[at] = count + 1;
        grew = true;
      }
    }
    if (!grew) return;
    this.#additions += 1;
    if (this.#additions >= this.#width * SAMPLE_FACTOR) this.#age();
  }

  estimate(key: string): number {
    const hash = hashOf(key);
    let least = COUNT_MAX;
    for (let row = 0; row < ROWS; row += 1) least = Math.min(least, this.#counters[this.#index(hash, row)] ?? 0);
    return least;
  }

  #index(hash: number, row: number): number {
    return row * this.#width + (mix(hash + Math.imul(row, 0x9e3779b9)) & (this.#width - 1));
  }

  #age(): void {
    this.#counters.forEach((count, at, all) => {
      all[at] = count >> 1;
    });
    this.#additions >>= 1;
  }

  #double(): void {
    const rows = this.#counters;
    const row = this.#width;
    this.#width *= 2;
    this.#counters = new Uint8Array(ROWS * this.#width);
    for (let at = 0; at < rows.length; at += row) {
      const counters = rows.subarray(at, at + row);
      this.#counters.set(counters, 2 * at);
      this.#counters.set(counters, 2 * at + row);
    }
  }
}

/** FNV-1a over the key's code units. */
function hashOf(key: string): number {
  let hash = 0x811c9dc5;
  for (let at = 0; at < key.length; at += 1) hash = Math.imul(hash ^ key.charCodeAt(at), 0x01000193);
  return hash;
}

/** As in the finaliser of MurmurHash3: every bit of the input affects the lower bits of the result. */
function mix(value: number): number {
  const mixed = Math.imul(value ^ (value >>> 16), 0x85ebca6b);
  return mixed ^ (mixed >>> 13);
}
