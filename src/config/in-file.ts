/** Names of settings in code, as config.yaml writes them. */

/** A path as the file writes it: snake_case, without units. */
export function asInFile(path: string): string {
  return path
    .replace(/^access\.value\./, 'access.')
    .split('.')
    .map((key) => key.replace(/(?:Ms|Bytes)$/, '').replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`))
    .join('.');
}
