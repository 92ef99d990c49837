/**
 * Submits a workflow document, watches it to its end, and shows what its tasks write.
 *
 *     node dist/examples/submit.js ADDRESS workflow.yaml ['{"input": "value"}']
 *
 * Events and log lines go to stderr, the outputs to stdout. Exits with 0 if the execution completed, with 1 if not.
 */
import { readFile } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';

import { Client, type Tailed, type Watched } from '../src/index.js';

const [address, file, inputs = '{}'] = process.argv.slice(2);
if (address === undefined || file === undefined) {
  console.error('usage: node submit.js ADDRESS workflow.yaml [INPUTS]');
  process.exit(2);
}

const client = new Client(address);
try {
  // Functions are imported from the document's own directory first, as the workers see it.
  const document = { source: await readFile(file), directory: dirname(resolve(file)) };
  const { executionId } = await client.submit({ document }, { inputs: JSON.parse(inputs) as Record<string, unknown> });
  console.error(executionId);
  await Promise.all([
    each(client.watch(executionId), showEvents),
    each(client.tailLogs(executionId, { follow: true }), showLines),
  ]);
  const execution = await client.get(executionId);
  if (execution.outputs) console.log(JSON.stringify(await client.read(execution.outputs)));
  if (execution.failure) console.error(execution.failure.message);
  process.exitCode = execution.state === 'EXECUTION_STATE_COMPLETED' ? 0 : 1;
} catch (error) {
  console.error((error as Error).message);
  process.exitCode = 1;
} finally {
  client.close();
}

async function each<T>(batches: AsyncIterable<T>, show: (batch: T) => void): Promise<void> {
  for await (const batch of batches) show(batch);
}

function showEvents(batch: Watched): void {
  for (const event of batch.events) {
    const item = event.task?.mapIndex === undefined ? '' : `[${event.task.mapIndex}]`;
    const what = event.task ? `${event.task.node}${item} ${event.task.state}` : (event.execution?.state ?? '');
    console.error(`${event.sequence} ${event.type} ${what}`);
  }
}

function showLines(batch: Tailed): void {
  for (const { node, attemptNumber, text } of batch.lines) console.error(`${node} #${attemptNumber} | ${text}`);
}
