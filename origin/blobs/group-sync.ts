/**
 * Syncs of folders that many uploads wait for at once.
 *
 * Promises: whoever asks is answered by a sync that began after the asking, so
 * that all done before is covered by it; those who ask while one is under way
 * share the next; a sync that fails fails all who shared it, and nobody else.
 */
export type GroupSync = (folder: string) => Promise<void>;

interface Group {
  readonly running: Promise<void>;
  /** Begins when the running one has ended, however it did. */
  next: Promise<void> | undefined;
}

export function createGroupSync(sync: (folder: string) => Promise<void>): GroupSync {
  const groups = new Map<string, Group>();

  function begin(folder: string): Promise<void> {
    const group: Group = { running: sync(folder), next: undefined };
    groups.set(folder, group);
    const ended = (): void => {
      if (group.next === undefined) groups.delete(folder);
    };
    group.running.then(ended, ended);
    return group.running;
  }

  return (folder) => {
    const group = groups.get(folder);
    if (group === undefined) return begin(folder);
    const again = (): Promise<void> => begin(folder);
    group.next ??= group.running.then(again, again);
    return group.next;
  };
}
