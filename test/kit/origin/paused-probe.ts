/**
 * A program instead of ffprobe and ffmpeg that waits until the test releases it,
 * and then reports sound of so many seconds: for media whose facts become known
 * when the test wants.
 */
import { chmodSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';

export interface PausedProbe {
  /** The keys of `origin.thumbs.video` that make the origin use it. */
  readonly video: { readonly ffmpeg: string; readonly ffprobe: string };
  release(): void;
}

export function pausedProbe(folder: string, seconds: number): PausedProbe {
  const program = resolve(folder, 'paused-probe');
  const released = join(resolve(folder), 'released');
  const output = JSON.stringify({
    streams: [{ index: 0, codec_type: 'audio' }],
    format: { duration: String(seconds) },
  });
  const lines = [
    '#!/bin/sh',
    'case "$*" in *-version*) exit 0 ;; esac',
    `while [ ! -e '${released}' ]; do sleep 0.02; done`,
    `echo '${output}'`,
    '',
  ];
  writeFileSync(program, lines.join('\n'));
  chmodSync(program, 0o755);
  return { video: { ffmpeg: program, ffprobe: program }, release: () => writeFileSync(released, '') };
}
