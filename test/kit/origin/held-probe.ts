/**
 * A program in the place of ffprobe and ffmpeg that says nothing of a file until
 * the test lets it, and then that it is sound of so many seconds: media whose
 * facts are known later, and no sooner than the test wants.
 */
import { chmodSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';

export interface HeldProbe {
  /** What `origin.thumbs.video` says to have it used. */
  readonly video: { readonly ffmpeg: string; readonly ffprobe: string };
  release(): void;
}

export function heldProbe(folder: string, seconds: number): HeldProbe {
  const program = resolve(folder, 'held-probe');
  const released = join(resolve(folder), 'released');
  const said = JSON.stringify({ streams: [{ index: 0, codec_type: 'audio' }], format: { duration: String(seconds) } });
  const lines = [
    '#!/bin/sh',
    'case "$*" in *-version*) exit 0 ;; esac',
    `while [ ! -e '${released}' ]; do sleep 0.02; done`,
    `echo '${said}'`,
    '',
  ];
  writeFileSync(program, lines.join('\n'));
  chmodSync(program, 0o755);
  return { video: { ffmpeg: program, ffprobe: program }, release: () => writeFileSync(released, '') };
}
