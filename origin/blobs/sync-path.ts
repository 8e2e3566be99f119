/** Makes durable what a file holds by now, or the names that a folder does. */
import { closeBare, openBare, syncBare } from './bare-files.js';

export async function syncPath(path: string): Promise<void> {
  const descriptor = await openBare(path, 'r');
  try {
    await syncBare(descriptor);
  } finally {
    await closeBare(descriptor);
  }
}
