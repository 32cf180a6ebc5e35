/** The notes that portmap keeps of sandboxes. Runs once: no agent takes part. */

import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { portMapChain } from '../../lib/firewall/names.ts';
import { makeHost } from '../support/host.ts';
import { files } from '../support/observe.ts';
import { suites } from '../support/plugin.ts';

test('an ADD that takes its note back leaves that of another interface of the container', async (t) => {
  const host = await makeHost(t, { mayHaveAgent: false });
  const notes = join(import.meta.dirname, '../../lib/firewall/portmap-notes.ts');
  const script = `
    import { notedAttachments, rememberAttachment } from ${JSON.stringify(notes)};
    const note = (ifname) =>
      rememberAttachment({ network: 'net', containerId: 'a', ifname, netns: '/run/netns/a', ports: [] });
    const takeBack = note('eth0');
    note('net1');
    takeBack();
    console.log(notedAttachments('net').map(({ ifname }) => ifname).join());`;
  const node = [process.execPath, '--no-warnings', '--input-type=module', '-e', script];
  t.is(await host.run(node), 'net1\n');
});

test('GC lists the notes of sandboxes as often for many that it forgets as for one', async (t) => {
  const host = await makeHost(t, { mayHaveAgent: false });
  const network = 'noted';
  const config = { cniVersion: '1.1.0', name: network, type: 'portmap', 'cni.dev/valid-attachments': [] };
  const listings = async (count: number) => {
    await host.run(['mkdir', '-p', '/run/cni/portmap']);
    for (let i = 0; i < count; i++) {
      const note = { network, containerId: `gone${i}`, ifname: 'eth0', netns: '/run/netns/gone' };
      writeFileSync(host.file(`/run/cni/portmap/${portMapChain(note)}.json`), JSON.stringify(note));
    }
    const trace = ['strace', '-qq', '-o', '/run/log', '-e', 'trace=getdents64'];
    const env = { CNI_COMMAND: 'GC', CNI_PATH: suites.ours };
    await host.run([...trace, join(suites.ours, 'portmap')], { env, stdin: JSON.stringify(config) });
    t.deepEqual(files(host, '/run/cni/portmap'), {});
    return (await host.run(['cat', '/run/log'])).match(/^getdents64/gm)?.length ?? 0;
  };
  const one = await listings(1);
  t.true(one > 0);
  t.is(await listings(20), one);
});
