/** `media-service config`: the file with every default, one key explained, or what counts and where it comes from. */
import { readFileSync } from 'node:fs';
import { formatFaults, processContext, type Sections } from '../config/load.js';
import { type RenderTexts, renderConfig } from '../config/render.js';
import { effectiveConfig, explainKey } from '../config/show.js';
import type { ProcessEntry } from '../process.js';

export interface ShowConfigWords {
  readonly path: string | undefined;
  readonly explain: string | undefined;
  readonly effective: boolean;
  readonly print: (text: string) => void;
  readonly printError: (line: string) => void;
}

/** Exit codes: 0 done, 2 an unknown key or a file with faults. */
export function showConfig(entries: readonly ProcessEntry[], texts: RenderTexts, words: ShowConfigWords): 0 | 2 {
  const { path, explain, effective, print, printError } = words;
  const sections: Sections = Object.assign({}, ...entries.map((entry) => entry.sections));
  if (explain !== undefined) {
    const { kind, text } = explainKey(sections, explain);
    if (kind === 'unknown') printError(text);
    else print(`${text}\n`);
    return kind === 'unknown' ? 2 : 0;
  }
  if (!effective) {
    print(renderConfig(sections, texts));
    return 0;
  }
  const faults = entries.flatMap((entry) => {
    const read = entry.read(path);
    return read.kind === 'faulty' ? read.faults : [];
  });
  if (faults.length > 0) {
    printError(`${path ?? 'the built-in configuration'} cannot be used:`);
    for (const line of new Set(faults.map((fault) => formatFaults([fault])))) printError(`  ${line}`);
    return 2;
  }
  print(effectiveConfig(sections, path === undefined ? '' : readFileSync(path, 'utf8'), processContext));
  return 0;
}
