/**
 * Writes config.yaml from the declarations: first the keys that nearly every
 * installation sets, then every key with its meaning, the values that it
 * accepts and its default. A test compares the file with what this writes.
 */
import { invariant } from '../errors.js';
import { type Field, fileKey, type Section } from './field.js';
import type { Sections } from './load.js';
import { writeYaml } from './yaml.js';

type Declared = Field<unknown> | Section<unknown>;

export interface RenderTexts {
  /** One paragraph each. */
  readonly preamble: readonly string[];
  /** Stands above the first keys. */
  readonly firstHelp: string;
  /** Dotted paths of keys, such as `edge.upstream.url`. */
  readonly firstKeys: readonly string[];
}

const LINE_MAX = 100;

/** The text of config.yaml. */
export function renderConfig(sections: Sections, { preamble, firstHelp, firstKeys }: RenderTexts): string {
  const head = [...preamble, firstHelp].map((paragraph) => comment(paragraph, '')).join('#\n');
  const first = writeYaml(defaultsOf(sections, firstKeys), LINE_MAX).replace(/^(?=.)/gm, '#   ');
  const shown = new Map<Declared, string>();
  const bodies = Object.entries(sections).map(([name, section]) => renderSection(name, section, '', name, shown));
  return [head, '#\n', first, '\n', bodies.join('\n')].join('');
}

/** The default of each key, nested as in the file. */
function defaultsOf(sections: Sections, paths: readonly string[]): unknown {
  const root: Record<string, unknown> = {};
  for (const path of paths) {
    const keys = path.split('.');
    const last = keys.pop() ?? '';
    let group = root;
    for (const key of keys) {
      group[key] ??= {};
      group = group[key] as Record<string, unknown>;
    }
    group[last] = fieldAt(sections, path).fallback;
  }
  return root;
}

function fieldAt(sections: Sections, path: string): Field<unknown> {
  const [top = '', ...keys] = path.split('.');
  const found = keys.reduce<Declared | undefined>((group, key) => {
    const fields = group?.kind === 'section' ? Object.entries(group.fields) : [];
    return fields.find(([name, field]) => fileKey(name, field) === key)?.[1];
  }, sections[top]);
  invariant(found?.kind === 'leaf', `config.yaml has no key ${path}`);
  return found;
}

/** `shown`: declarations that the file has already, with their paths. Their help is not repeated. */
function renderSection(
  key: string,
  section: Section<unknown>,
  indent: string,
  path: string,
  shown: Map<Declared, string>,
): string {
  const before = shown.get(section);
  shown.set(section, path);
  const body = Object.entries(section.fields).map(([name, field], index, all) => {
    const inner = `${indent}  `;
    const innerKey = fileKey(name, field);
    const innerPath = `${path}.${innerKey}`;
    if (field.kind === 'section') {
      return gap(inner, index, true) + renderSection(innerKey, field, inner, innerPath, shown);
    }
    const text =
      before === undefined ? renderLeaf(innerKey, field, inner, innerPath, shown) : yamlLeaf(innerKey, field, inner);
    return gap(inner, index, all[index - 1]?.[1].kind === 'section') + text;
  });
  const help = before === undefined ? section.help : `As ${before}.`;
  return `${comment(help, indent)}${indent}${key}:\n${body.join('')}`;
}

/** An empty line around each section of the second level. */
function gap(indent: string, index: number, besideSection: boolean): string {
  return indent.length === 2 && index > 0 && besideSection ? '\n' : '';
}

function renderLeaf(
  key: string,
  field: Field<unknown>,
  indent: string,
  path: string,
  shown: Map<Declared, string>,
): string {
  const before = shown.get(field);
  shown.set(field, path);
  const help = before === undefined ? explain(field, indent) : comment(`As ${before}.`, indent);
  return help + yamlLeaf(key, field, indent) + exampleOf(key, field, indent);
}

/** The key with its examples, as they may stand in its place. */
function exampleOf(key: string, { examples = [] }: Field<unknown>, indent: string): string {
  if (examples.length === 0) return '';
  const items = examples.map(({ why, item }) => {
    const yaml = writeYaml({ [key]: [item] }, LINE_MAX);
    return comment(why, '  ') + yaml.slice(yaml.indexOf('\n') + 1);
  });
  return `${indent}# For example:\n${`${key}:\n${items.join('')}`.replace(/^(?=.)/gm, `${indent}# `)}`;
}

/** The meaning of a key and the values that it accepts, on two lines if one is too short. */
function explain({ help, accepts, live }: Field<unknown>, indent: string): string {
  const note = `(${accepts}${live === true ? '; live' : ''})`;
  const line = comment(`${help} ${note}`, indent);
  return line.indexOf('\n') === line.length - 1 ? line : comment(help, indent) + comment(note, indent);
}

function yamlLeaf(key: string, field: Field<unknown>, indent: string): string {
  if (field.fallback === undefined) return `${indent}# ${key}:\n`;
  return writeYaml({ [key]: field.fallback }, LINE_MAX).replace(/^(?=.)/gm, indent);
}

function comment(text: string, indent: string): string {
  return wrap(text, LINE_MAX - indent.length - 2)
    .map((line) => `${indent}# ${line}\n`)
    .join('');
}

function wrap(text: string, width: number): string[] {
  const lines: string[] = [];
  let line = '';
  for (const word of text.split(' ')) {
    if (line !== '' && line.length + word.length + 1 > width) {
      lines.push(line);
      line = word;
    } else {
      line = line === '' ? word : `${line} ${word}`;
    }
  }
  return [...lines, line];
}
