import { copyFileSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import { defineMainPlugin } from '../../../lib/cni/main-plugin.ts';
import { definePlugin, type Plugin } from '../../../lib/cni/plugin.ts';
import { emptyResult } from '../../../lib/cni/result.ts';
import { runPlugin } from '../../../lib/cni/runner.ts';

/** Runs DEL with an IPAM plugin of this executable. @returns what happened, in order. */
async function del(t: ExecutionContext, worksOnFiles: boolean): Promise<string[]> {
  const path = mkdtempSync(join(tmpdir(), 'cni-main-'));
  t.teardown(() => rmSync(path, { recursive: true }));
  const program = join(path, 'addresses');
  copyFileSync('/bin/true', program);
  const steps: string[] = [];
  const main = defineMainPlugin({
    name: 'main',
    summary: '',
    kind: '',
    config: {},
    create: () => ({ interfaces: [], link: undefined }),
    remove: () => void steps.push('interface removed'),
  });
  const addresses = definePlugin({
    name: 'addresses',
    summary: '',
    role: 'ipam',
    config: {},
    worksOnFiles,
    add: () => emptyResult(),
    async del() {
      await sleep(20);
      steps.push('address released');
    },
  });
  const caller = {
    program,
    environment: { CNI_COMMAND: 'DEL', CNI_CONTAINERID: 'c', CNI_IFNAME: 'eth0', CNI_PATH: path },
    warn: () => {},
    readStdin: async () =>
      JSON.stringify({ cniVersion: '1.0.0', name: 'n', type: 'main', ipam: { type: 'addresses' } }),
    print: async (text: string) => void steps.push(text),
  };
  const find = (name: string) =>
    name === 'addresses' ? Promise.resolve(addresses as Plugin<never>) : undefined;
  t.is(await runPlugin(main as Plugin<never>, caller, find), 0);
  return steps;
}

test('the interface goes beside the address, unless the IPAM plugin may have to speak through it', async (t) => {
  t.deepEqual(await del(t, true), ['interface removed', 'address released']);
  t.deepEqual(await del(t, false), ['address released', 'interface removed']);
});
