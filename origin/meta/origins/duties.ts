/**
 * Regular work on what all origins share, which one of them does for all. Each step of such work may also be done by two:
 * a duty saves work and is no lock.
 */
export type DutyName = 'expire' | 'sweep' | 'walk' | 'trim' | 'rescan' | 'webhooks';

export interface Duties {
  /**
   * Whether this origin does this work now. It is asked every `everyMs`; once an origin has the duty, the others get it
   * only after that one was silent for a few times as long. Never rejects.
   */
  take(name: DutyName, everyMs: number): Promise<boolean>;
  /** How far the work had come, as whoever did it last has noted; undefined: nothing is known. */
  note(name: DutyName): Promise<unknown>;
  /** Notes how far the work has come, for whoever goes on with it. */
  keepNote(name: DutyName, note: unknown): Promise<void>;
}

/** The only origin does everything. Its notes end with it. */
export function ownDuties(): Duties {
  const notes = new Map<DutyName, unknown>();
  return {
    take: () => Promise.resolve(true),
    note: (name) => Promise.resolve(notes.get(name)),
    async keepNote(name, note) {
      notes.set(name, note);
    },
  };
}

/** For a command beside the origins, which do everything. */
export const NO_DUTIES: Duties = {
  take: () => Promise.resolve(false),
  note: () => Promise.resolve(undefined),
  keepNote: () => Promise.resolve(),
};
