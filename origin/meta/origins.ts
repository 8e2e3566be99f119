/** The origins that share one metadata store. Over LMDB there is one. */
export interface Origins {
  /** This origin among them; empty where there is only one. */
  readonly name: string;
  /** Those that were heard of lately, this one included, in the order of their names. */
  living(): readonly LivingOrigin[];
  /** Rejects if the clock of this machine differs too much from that of the store, so that its instants are wrong. */
  checkClock(): Promise<void>;
}

export interface LivingOrigin {
  readonly name: string;
  /** Another run of the same origin has another. */
  readonly started: string;
}

/** The only one: it decides everything itself. */
export const ONE_ORIGIN: Origins = {
  name: '',
  living: () => [{ name: '', started: '' }],
  checkClock: () => Promise.resolve(),
};
