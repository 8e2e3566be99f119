/** Files on their way: each has a line with its progress and can be paused, continued and cancelled. */
import type { Upload, UploadState } from '../../client/client.js';
import { byId, element } from '../../live/element.js';
import type { Session } from './session.js';

export interface Sender {
  send(files: Iterable<File>): void;
}

const WORDS: Readonly<Record<UploadState, string>> = {
  waiting: 'waiting',
  sending: 'sending',
  paused: 'paused',
  retrying: 'no connection; trying again',
  finished: 'sent',
  failed: 'failed',
};

export function openSender(session: Session, onTrouble: (words: string) => void): Sender {
  const list = byId('uploads', HTMLUListElement);
  const send = async (file: File): Promise<void> => {
    onTrouble('');
    const upload = session.media.upload(file, { public: isPublic() });
    const line = showUpload(file.name, upload);
    list.append(line);
    try {
      await session.say('', await upload.done);
    } catch (thrown) {
      const { message, code } = thrown as { readonly message: string; readonly code?: string };
      if (code !== 'aborted') onTrouble(`${file.name}: ${message}`);
    } finally {
      line.remove();
    }
  };
  return {
    send(files) {
      for (const file of files) void send(file);
    },
  };
}

function isPublic(): boolean {
  return document.querySelector<HTMLInputElement>('input[name=visibility]:checked')?.value === 'public';
}

function showUpload(name: string, upload: Upload): HTMLLIElement {
  const bar = element('progress', { max: 1, value: 0 });
  bar.setAttribute('aria-label', name);
  const state = element('span', {}, WORDS.waiting);
  const pause = element('button', { type: 'button', className: 'small' }, 'Pause');
  const cancel = element('button', { type: 'button', className: 'small' }, 'Cancel');
  for (const [button, verb] of [
    [pause, 'Pause'],
    [cancel, 'Cancel'],
  ] as const) {
    button.setAttribute('aria-label', `${verb} ${name}`);
  }
  upload.on('progress', ({ sentBytes, totalBytes }) => {
    bar.value = sentBytes / totalBytes;
  });
  upload.on('state', (next) => {
    state.textContent = WORDS[next];
    pause.textContent = next === 'paused' ? 'Continue' : 'Pause';
    pause.setAttribute('aria-label', `${pause.textContent} ${name}`);
  });
  pause.addEventListener('click', () => (upload.state === 'paused' ? upload.resume() : upload.pause()));
  cancel.addEventListener('click', () => upload.cancel());
  return element('li', {}, element('span', { className: 'name' }, `${name} · `, state), pause, cancel, bar);
}
