import { copyFileSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import type { InterfaceGoes } from '../../../lib/cni/call.ts';
import { defineMainPlugin } from '../../../lib/cni/main-plugin.ts';
import { definePlugin, type Plugin } from '../../../lib/cni/plugin.ts';
import { emptyResult } from '../../../lib/cni/result.ts';
import { runPlugin } from '../../../lib/cni/runner.ts';

/**
 * Runs DEL with an IPAM plugin of this executable.
 * @param remove removes the interface, or fails to.
 * @returns the exit code, and what happened, in order.
 */
async function del(
  t: ExecutionContext,
  interfaceGoes: InterfaceGoes,
  remove: () => Promise<void> = async () => {},
): Promise<{ exit: number; steps: string[] }> {
  const path = mkdtempSync(join(tmpdir(), 'cni-main-'));
  t.teardown(() => rmSync(path, { recursive: true }));
  const program = join(path, 'addresses');
  copyFileSync('/bin/true', program);
  const steps: string[] = [];
  const [begun, released] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  // Steps that are done side by side wait for one another; others take some time each.
  const isBeside = interfaceGoes === 'beside';
  const main = defineMainPlugin({
    name: 'main',
    summary: '',
    kind: '',
    config: {},
    create: () => ({ interfaces: [], link: undefined }),
    async remove() {
      steps.push('interface begun');
      begun.resolve();
      await (isBeside ? released.promise : sleep(40));
      await remove();
      steps.push('interface removed');
    },
  });
  const addresses = definePlugin({
    name: 'addresses',
    summary: '',
    role: 'ipam',
    config: {},
    interfaceGoes,
    add: () => emptyResult(),
    async del() {
      await (isBeside ? begun.promise : sleep(20));
      steps.push('address released');
      released.resolve();
    },
  });
  const caller = {
    program,
    environment: { CNI_COMMAND: 'DEL', CNI_CONTAINERID: 'c', CNI_IFNAME: 'eth0', CNI_PATH: path },
    warn: () => {},
    readStdin: async () =>
      JSON.stringify({ cniVersion: '1.0.0', name: 'n', type: 'main', ipam: { type: 'addresses' } }),
    print: async () => {},
  };
  const find = (name: string) =>
    name === 'addresses' ? Promise.resolve(addresses as Plugin<never>) : undefined;
  const exit = await runPlugin(main as Plugin<never>, caller, find);
  return { exit, steps };
}

test('the interface goes before, beside or after the addresses, as the IPAM plugin says', async (t) => {
  const [begun, removed, released] = ['interface begun', 'interface removed', 'address released'];
  t.deepEqual((await del(t, 'before')).steps, [begun, removed, released]);
  t.deepEqual((await del(t, 'beside')).steps, [begun, released, removed]);
  t.deepEqual((await del(t, 'after')).steps, [released, begun, removed]);
});

test('an interface that cannot be removed keeps its addresses where other nodes could have them', async (t) => {
  const fail = async () => {
    throw new Error('busy');
  };
  t.deepEqual(await del(t, 'before', fail), { exit: 1, steps: ['interface begun'] });
  t.deepEqual(await del(t, 'beside', fail), { exit: 1, steps: ['interface begun', 'address released'] });
});
