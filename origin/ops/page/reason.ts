/** Asks for the reason of an act before it is done, in a dialog that Escape closes. */
import { byId } from '../../../src/live/element.js';

/** Undefined: the act was given up. */
export function askReason(title: string, about: string, label: string): Promise<string | undefined> {
  const dialog = byId('ask', HTMLDialogElement);
  const reason = byId('reason', HTMLInputElement);
  byId('ask-title', HTMLElement).textContent = title;
  byId('ask-about', HTMLElement).textContent = about;
  byId('ask-do', HTMLButtonElement).textContent = label;
  reason.value = '';
  dialog.returnValue = '';
  const over = new AbortController();
  byId('ask-cancel', HTMLButtonElement).addEventListener('click', () => dialog.close(), { signal: over.signal });
  dialog.showModal();
  reason.focus();
  return new Promise((resolve) => {
    const end = (): void => {
      over.abort();
      resolve(dialog.returnValue === 'do' ? reason.value.trim() : undefined);
    };
    dialog.addEventListener('close', end, { once: true });
  });
}
