/**
 * A worker whose functions are written in TypeScript.
 *
 *     node dist/examples/worker.js ADDRESS WORKER_ID
 *
 * Ctrl-C drains it: it finishes what it holds and leaves.
 */
import { setTimeout as delay } from 'node:timers/promises';

import { Worker } from '../src/index.js';

const [address, workerId] = process.argv.slice(2);
if (address === undefined || workerId === undefined) {
  console.error('usage: node worker.js ADDRESS WORKER_ID');
  process.exit(2);
}

const worker = new Worker({
  address,
  workerId,
  slots: 4,
  functions: {
    'text:split': ({ text }) => String(text).split(/\s+/).filter(Boolean),
    'text:reverse': ({ word }) => [...String(word)].reverse().join(''),
    'text:join': ({ words }) => (words as string[]).join(' '),
    'text:refuse': ({ word }) => {
      throw new RangeError(`not ${String(word)}`);
    },
    'text:nap': async ({ seconds }, { signal }) => {
      await delay(Number(seconds) * 1_000, undefined, { signal });
      return 'awake';
    },
    'text:large': ({ length }) => 'x'.repeat(Number(length)),
    'text:size': ({ text }) => String(text).length,
  },
});
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => worker.drain());
try {
  await worker.run();
} catch (error) {
  // The process ends whatever still runs in it: attempts that do not stop must not outlive their lease.
  console.error((error as Error).message);
  process.exit(1);
}
