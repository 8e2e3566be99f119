/** The development Authentication Service as a process of its own: `node auth.js HOST PORT FOLDER`. */
import { keepAlive } from '../clock.js';
import { openDevAuth } from '../dev/auth-service.js';

const [host = '127.0.0.1', port = '9100', folder = './data/auth'] = process.argv.slice(2);
const alive = keepAlive();
const service = await openDevAuth({ host, port: Number(port), folder });
process.once('SIGTERM', () => {
  void service.close().then(() => alive.release());
});
