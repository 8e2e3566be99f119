/**
 * The reference of the interface as a page for people, made of `/openapi.json`: one document without scripts, which loads
 * nothing. Pure. Leaves to others: where it is served.
 */
import { hash } from 'node:crypto';

type Fields = Readonly<Record<string, unknown>>;

export interface ReferencePage {
  readonly html: string;
  /** Its Content-Security-Policy. */
  readonly policy: string;
}

const METHODS = ['get', 'head', 'post', 'put', 'patch', 'delete', 'options'] as const;

export function referencePage(document: unknown): ReferencePage {
  const { info, paths, webhooks, components } = fieldsIn(document);
  const title = text(fieldsIn(info)['title']);
  const operations = Object.entries(fieldsIn(paths)).flatMap(([path, methods]) =>
    operationsOf(path, fieldsIn(methods)),
  );
  const events = Object.entries(fieldsIn(webhooks)).flatMap(([type, methods]) => operationsOf(type, fieldsIn(methods)));
  const schemas = Object.entries(fieldsIn(fieldsIn(components)['schemas']));
  const html = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${title}: reference</title>
<style>${STYLE}</style>
</head>
<body>
<header><h1>${title}</h1><p>${text(fieldsIn(info)['description'])}</p></header>
<nav aria-label="Operations"><ul>
${[...operations, ...events].map(({ anchor, name }) => `<li><a href="#${anchor}">${name}</a></li>`).join('\n')}
</ul></nav>
<main>
${operations.map(({ html: section }) => section).join('\n')}
${events.length === 0 ? '' : '<h2 id="webhooks">Webhooks: what the chat server receives</h2>'}
${events.map(({ html: section }) => section).join('\n')}
<h2 id="schemas">Schemas</h2>
${schemas.map(([name, schema]) => schemaSection(name, schema)).join('\n')}
</main>
</body>
</html>
`;
  const style = `'sha256-${hash('sha256', STYLE, 'base64')}'`;
  return { html, policy: `default-src 'none'; style-src ${style}; base-uri 'none'; form-action 'none'` };
}

/** HEAD is GET without the body, so it has no section of its own beside GET. */
function operationsOf(path: string, methods: Fields) {
  const named = METHODS.filter((method) => method in methods && !(method === 'head' && 'get' in methods));
  return named.map((method) => {
    const operation = fieldsIn(methods[method]);
    const alsoHead = method === 'get' && 'head' in methods;
    const name = `<code>${method.toUpperCase()}${alsoHead ? ' HEAD' : ''} ${text(path)}</code>`;
    const anchor = text(operation['operationId'] ?? `${method}${path}`);
    return { anchor, name, html: operationSection(anchor, name, operation) };
  });
}

function operationSection(anchor: string, name: string, operation: Fields): string {
  const parameters = listIn(operation['parameters']);
  const body = fieldsIn(operation['requestBody']);
  const responses = Object.entries(fieldsIn(operation['responses']));
  return `<section id="${anchor}">
<h2>${name}</h2>
<p>${prose(operation['summary'])}</p>
<p>Credential: ${credentialsOf(operation)}. Name: <code>${anchor}</code>.</p>
${parameters.length === 0 ? '' : `<h3>Parameters</h3>\n<dl>${parameters.map(parameterRow).join('')}</dl>`}
${'content' in body ? `<h3>Body</h3>\n<p>${prose(body['description'])} ${contentOf(body)}</p>` : ''}
<h3>Responses</h3>
<dl>${responses.map(([status, response]) => responseRow(status, fieldsIn(response))).join('')}</dl>
</section>`;
}

function credentialsOf(operation: Fields): string {
  const names = listIn(operation['security']).map((each) => Object.keys(fieldsIn(each))[0] ?? 'none');
  return names.map(text).join(' or ');
}

function parameterRow(parameter: unknown): string {
  const { name, in: place, description } = fieldsIn(parameter);
  return `<dt><code>${text(name)}</code> <small>${text(place)}</small></dt><dd>${prose(description)}</dd>`;
}

function responseRow(status: string, response: Fields): string {
  const names = Object.keys(fieldsIn(response['headers'])).map((name) => `<code>${text(name)}</code>`);
  const fields = names.length === 0 ? '' : `<br><small>${names.join(' ')}</small>`;
  return `<dt><code>${text(status)}</code></dt><dd>${prose(response['description'])} ${contentOf(response)}${fields}</dd>`;
}

/** Media types, each with the name of its schema as a link. */
function contentOf({ content }: Fields): string {
  const types = Object.entries(fieldsIn(content)).map(([type, media]) => {
    const reference = fieldsIn(fieldsIn(media)['schema'])['$ref'];
    const name = typeof reference === 'string' ? text(reference.split('/').at(-1)) : undefined;
    return `<code>${text(type)}</code>${name === undefined ? '' : ` <a href="#schema-${name}">${name}</a>`}`;
  });
  return types.join(', ');
}

function schemaSection(name: string, schema: unknown): string {
  return `<section id="schema-${text(name)}">
<h3>${text(name)}</h3>
<pre tabindex="0">${text(JSON.stringify(schema, null, 2))}</pre>
</section>`;
}

/** Text whose words between backticks are code. */
function prose(value: unknown): string {
  return text(value).replace(/`([^`]+)`/g, '<code>$1</code>');
}

function text(value: unknown): string {
  const plain = typeof value === 'string' || typeof value === 'number' ? String(value) : '';
  return plain.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);
}

function fieldsIn(value: unknown): Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Fields) : {};
}

function listIn(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : [];
}

const STYLE = `
:root { color-scheme: light dark; }
body { font: 1rem/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 60rem; padding: 1rem; }
h2 { border-top: 1px solid; font-size: 1.1rem; margin-top: 2rem; padding-top: 1rem; }
h3 { font-size: 1rem; }
nav ul { columns: 20rem; padding-left: 1.2rem; }
dt { float: left; clear: left; padding-right: 1rem; }
dd { margin: 0 0 .5rem 14rem; }
pre { overflow-x: auto; border: 1px solid; padding: .5rem; }
code { overflow-wrap: anywhere; }
@media (max-width: 40rem) { dt { float: none; } dd { margin-left: 1rem; } }
`;
