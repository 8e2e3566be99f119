/**
 * Doubles of ffmpeg, ffprobe and heif-convert: shell scripts in a folder that note how they were called and then do what
 * the test says. So a machine without these programs notices a wrong line too.
 */
import { chmod, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

export type ProgramName = 'ffmpeg' | 'ffprobe' | 'heif-convert';

export type MediaPrograms = {
  /** `thumbs.video` with these programs. */
  readonly video: Readonly<Record<'ffmpeg' | 'ffprobe' | 'heif_convert', string>>;
  /**
   * Gives a program its shell commands. There `$last` is the path of its last argument, and `$at` the second to which
   * ffmpeg was told to seek, or 0.
   */
  does(name: ProgramName, commands: string): Promise<void>;
  /** The arguments of each call so far, without those that ask for the version. */
  calls(name: ProgramName): Promise<readonly (readonly string[])[]>;
};

const SEPARATOR = '\u001f';

export async function createMediaPrograms(folder: string): Promise<MediaPrograms> {
  const path = (name: ProgramName): string => join(folder, name);
  const programs: MediaPrograms = {
    video: { ffmpeg: path('ffmpeg'), ffprobe: path('ffprobe'), heif_convert: path('heif-convert') },
    async does(name, commands) {
      await writeFile(path(name), scriptOf(join(folder, `${name}.calls`), commands));
      await chmod(path(name), 0o755);
    },
    async calls(name) {
      const text = await readFile(join(folder, `${name}.calls`), 'utf8').catch(() => '');
      const lines = text.split('\n').slice(0, -1);
      return lines
        .map((line) => line.split(SEPARATOR).slice(0, -1))
        .filter((args) => !args.at(-1)?.endsWith('version'));
    },
  };
  for (const name of ['ffmpeg', 'ffprobe', 'heif-convert'] as const) await programs.does(name, '');
  return programs;
}

function scriptOf(calls: string, commands: string): string {
  return `#!/bin/sh
printf '%s\\037' "$@" >> '${calls}'
echo >> '${calls}'
at=0
for last; do
  [ "$before" = -ss ] && at=$last
  before=$last
done
last=\${last#file:}
${commands}
`;
}
