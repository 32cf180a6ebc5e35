import test from 'ava';
import { Agent } from '../../../agent/agent.ts';
import type { Offer } from '../../../agent/protocol.ts';

/** A call of a runtime that offers it to the agent. */
const offer = (CNI_COMMAND: string, CNI_CONTAINERID: string) =>
  ({ environment: { CNI_COMMAND, CNI_CONTAINERID, CNI_IFNAME: 'eth0' } }) as unknown as Offer;

test('a DEL does not wait for an ADD of its own container that nobody waits for', async (t) => {
  const agent = new Agent({
    ...{ socket: '', program: '', build: '', idleTimeoutMs: 0 },
    plugins: new Map(),
    concurrency: 1,
  });
  const done: string[] = [];
  const never = new AbortController().signal;
  const hanging = Promise.withResolvers<void>();
  const calls = [agent.schedule(offer('ADD', 'other'), never, () => hanging.promise)];
  const runtime = new AbortController();
  const call = (command: string, container: string, signal: AbortSignal) =>
    calls.push(
      agent.schedule(offer(command, container), signal, async () => void done.push(command + container)),
    );
  call('ADD', 'a', runtime.signal);
  call('ADD', 'b', never);
  call('DEL', 'c', never);
  runtime.abort();
  call('DEL', 'a', never);
  await new Promise((resolve) => setImmediate(resolve));
  t.deepEqual(done, ['ADDa'], 'which does nothing any more');
  hanging.resolve();
  await Promise.all(calls);
  t.deepEqual(done, ['ADDa', 'DELc', 'DELa', 'ADDb']);
  t.is(agent.statistics.queued, 0);
});
