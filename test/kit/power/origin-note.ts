/** What origin-workload.ts notes: what it is about to ask for, and what was answered. Also what it and its check agree on. */
import { join } from 'node:path';
import type { MediaId, Sha256 } from '../../../src/ids.js';

export type OriginNote =
  | { readonly did: 'upload'; readonly id: MediaId; readonly sha256: Sha256 }
  | { readonly will: Act; readonly id: MediaId }
  | { readonly did: Act; readonly id: MediaId }
  /** The bytes of `source` up to an offset are kept. */
  | { readonly did: 'offset'; readonly upload: string; readonly source: number; readonly offset: number }
  | { readonly will: 'finish' | 'drop'; readonly upload: string }
  | { readonly did: 'finish' | 'drop'; readonly upload: string };

export type Act = 'delete' | 'quarantine' | 'restore';

/** Words that differ from line to line and from seed to seed. */
export function words(seed: number, sizeBytes: number): Buffer {
  const lines: string[] = [];
  for (let at = 0, nth = 0; at < sizeBytes; nth += 1) {
    const line = `line ${nth} of text ${seed}\n`;
    lines.push(line);
    at += line.length;
  }
  return Buffer.from(lines.join('').slice(0, sizeBytes));
}

/** A resumable upload in parts of this size, of which the last completes it. */
export const PART_BYTES = 150_000;
export const PARTS = 3;

/** The keys of the section `origin`. Small audit files, so that one is rotated. */
export function workloadSection(folder: string): Readonly<Record<string, unknown>> {
  return {
    thumbs: { enabled: false, video: { enabled: false } },
    upload: { free_min: '0B', strip_originals: { enabled: true } },
    retention: { grace: '1m', sweep_every: '10m' },
    meta: { folder: join(folder, 'meta'), reserve: '64KiB' },
    audit: { file: join(folder, 'audit', 'audit.jsonl'), rotate: '1kB' },
  };
}
