/** A number of bytes that several bodies share. None takes more than is left. */
export class Budget {
  readonly limitBytes: number;
  #leftBytes: number;

  constructor(limitBytes: number) {
    this.limitBytes = limitBytes;
    this.#leftBytes = limitBytes;
  }

  /** Takes them if at least `leavingBytes` are left then. */
  tryTake(bytes: number, leavingBytes = 0): boolean {
    if (bytes + leavingBytes > this.#leftBytes) return false;
    this.#leftBytes -= bytes;
    return true;
  }

  giveBack(bytes: number): void {
    this.#leftBytes += bytes;
  }
}
