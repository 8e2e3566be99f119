/** YAML as config.yaml uses it. */
import { parseDocument, stringify } from 'yaml';

export type YamlRead =
  | { readonly kind: 'read'; readonly value: unknown }
  | { readonly kind: 'faulty'; readonly errors: readonly YamlError[] };

export interface YamlError {
  readonly message: string;
  /** The line of the text that cannot be read, where the parser shows one. */
  readonly line?: string;
}

export function readYaml(text: string): YamlRead {
  const document = parseDocument(text, { prettyErrors: true });
  if (document.errors.length > 0)
    return { kind: 'faulty', errors: document.errors.map(({ message }) => errorOf(message)) };
  return { kind: 'read', value: document.toJS({ maxAliasCount: 10 }) };
}

export function writeYaml(value: unknown, lineWidth: number): string {
  return stringify(value, { lineWidth, flowCollectionPadding: true });
}

/** The parser's first line, and the line of the text that it points at. */
function errorOf(text: string): YamlError {
  const [message = text, ...shown] = text.split('\n').map((line) => line.trim());
  const line = shown.find((each) => each !== '' && !/^\^+$/.test(each));
  return line === undefined ? { message } : { message, line };
}
