/** CSV (RFC 4180), read piece by piece: lines of fields, with quotes, and line ends of either kind. */

/** The first quote that is not closed before the end is an error. Empty lines are left out. */
export async function* readCsv(pieces: AsyncIterable<string>): AsyncGenerator<readonly string[]> {
  let fields: string[] = [];
  let field = '';
  let state: 'plain' | 'quoted' | 'quote' = 'plain';
  for await (const piece of pieces) {
    for (const char of piece) {
      if (state === 'quoted') {
        if (char === '"') state = 'quote';
        else field += char;
        continue;
      }
      if (char === '"' && (state === 'quote' || field === '')) {
        // A second quote within quotes stands for one.
        if (state === 'quote') field += char;
        state = 'quoted';
        continue;
      }
      state = 'plain';
      if (char === ',' || char === '\n') {
        fields.push(char === '\n' ? field.replace(/\r$/, '') : field);
        field = '';
      } else field += char;
      if (char !== '\n') continue;
      if (fields.length > 1 || fields[0] !== '') yield fields;
      fields = [];
    }
  }
  if (state === 'quoted') throw new Error('the last field has a quote that is not closed');
  fields.push(field.replace(/\r$/, ''));
  if (fields.length > 1 || fields[0] !== '') yield fields;
}
