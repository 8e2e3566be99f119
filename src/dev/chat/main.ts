/** The chat of the page for people: ties the room, what is sent and what is recorded to the document. */
import { byId } from '../../live/element.js';
import { showMessage } from './message.js';
import { openRecorder } from './recorder.js';
import { openSender } from './sending.js';
import { followRoom, openSession } from './session.js';

const session = openSession();
const log = byId('log', HTMLOListElement);
const scroll = byId('scroll', HTMLElement);
const trouble = (words: string): void => {
  byId('trouble', HTMLElement).textContent = words;
};

byId('me', HTMLElement).textContent = session.name;
void session.media.about().then(
  ({ max_upload_size }) => {
    byId('service', HTMLElement).textContent = `files up to ${Math.floor(max_upload_size / 1_000_000)} MB`;
  },
  () => trouble('The service does not answer.'),
);

followRoom(
  (message) => {
    const atEnd = scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < 120;
    byId('empty', HTMLElement).hidden = true;
    log.append(showMessage(session, message));
    if (atEnd || message.author === session.name) scroll.scrollTop = scroll.scrollHeight;
  },
  () => location.reload(),
);

const sender = openSender(session, trouble);
openRecorder((file) => sender.send([file]), trouble);

byId('write', HTMLFormElement).addEventListener('submit', (event) => {
  event.preventDefault();
  const input = byId('text', HTMLInputElement);
  const words = input.value.trim();
  if (words === '') return;
  input.value = '';
  session.say(words, null).catch(() => trouble('The message could not be sent.'));
});

const files = byId('files', HTMLInputElement);
files.addEventListener('change', () => {
  sender.send(files.files ?? []);
  files.value = '';
});
document.addEventListener('paste', ({ clipboardData }) => sender.send(clipboardData?.files ?? []));

document.addEventListener('dragover', (event) => {
  event.preventDefault();
  document.body.classList.add('dropping');
});
document.addEventListener('dragleave', ({ relatedTarget }) => {
  if (relatedTarget === null) document.body.classList.remove('dropping');
});
document.addEventListener('drop', (event) => {
  event.preventDefault();
  document.body.classList.remove('dropping');
  sender.send(event.dataTransfer?.files ?? []);
});
