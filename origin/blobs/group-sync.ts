/**
 * Syncs of folders that many uploads wait for at once.
 *
 * Promises: a call is resolved by a sync that began after the call, so that the
 * sync covers all that was done before. Calls that come while a sync runs share
 * the next one. A sync that fails rejects the calls that share it, and no others.
 */
export type GroupSync = (folder: string) => Promise<void>;

interface Group {
  readonly running: Promise<void>;
  /** Begins when the running one has ended, whether it failed or not. */
  next: Promise<void> | undefined;
}

export function createGroupSync(sync: (folder: string) => Promise<void>): GroupSync {
  const groups = new Map<string, Group>();

  function begin(folder: string): Promise<void> {
    const group: Group = { running: sync(folder), next: undefined };
    groups.set(folder, group);
    const onEnd = (): void => {
      if (group.next === undefined) groups.delete(folder);
    };
    group.running.then(onEnd, onEnd);
    return group.running;
  }

  return (folder) => {
    const group = groups.get(folder);
    if (group === undefined) return begin(folder);
    const beginNext = (): Promise<void> => begin(folder);
    group.next ??= group.running.then(beginNext, beginNext);
    return group.next;
  };
}
