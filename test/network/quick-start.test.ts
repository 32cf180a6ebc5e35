/**
 * The commands of the README and of docs/runtimes.md work when pasted, on a host that has nothing yet.
 * Runs once: no agent takes part.
 */

import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { type Host, makeHost, type Teardown } from '../support/host.ts';
import { pluginNames, suites } from '../support/plugin.ts';
import { cleanEnv } from '../support/run.ts';

const root = join(import.meta.dirname, '../..');
/** Blocks with these need a registry, a cluster, a runtime of their own or an hour. */
const elsewhere = /\b(?:npm|crictl|podman|kubectl|docker)\b|scripts\//;

/** The blocks of commands in a document, without their indentation. */
const blocksOf = (document: string) =>
  [...readFileSync(join(root, document), 'utf8').matchAll(/^( *)```sh\n([\s\S]*?)^ *```$/gm)].map(
    ([, indentation, text]) => text!.replaceAll(new RegExp(`^${indentation}`, 'gm'), ''),
  );

/** A host with empty /opt and /etc/systemd/system, and a systemctl that writes down what it is told. */
async function makeBareHost(t: Teardown): Promise<Host> {
  const host = await makeHost(t);
  const script = `set -e
    rmdir /etc/cni/net.d
    mount -t tmpfs tmpfs /opt
    mount -t tmpfs tmpfs /etc/systemd/system
    mkdir /run/fake
    printf '#!/bin/sh\\necho "$*" >>/run/fake/log\\n' >/run/fake/systemctl
    chmod +x /run/fake/systemctl`;
  await host.run(['sh', '-c', script]);
  return host;
}

const paste = (host: Host, block: string) =>
  host.tryRun(['env', '--chdir', root, 'bash', '-euc', block], {
    env: { PATH: `/run/fake:${cleanEnv.PATH}` },
  });

for (const [document, number] of [
  ['README.md', 1],
  ['docs/runtimes.md', 3],
] as const)
  test(`the commands of ${document}`, async (t) => {
    const blocks = blocksOf(document).filter((block) => !elsewhere.test(block));
    t.is(blocks.length, number, blocks.join('---\n'));
    for (const block of blocks) {
      const host = await makeBareHost(t);
      const { exit, stdout, stderr } = await paste(host, block);
      t.is(exit, 0, `${block}\n${stdout}${stderr}`);
      if (block.includes('cni install')) {
        t.deepEqual(pluginNames(host.file('/opt/cni/bin')).sort(), pluginNames(suites.ours).sort());
      }
      if (block.includes('conf/10-bridge'))
        t.true(existsSync(host.file('/etc/cni/net.d/10-bridge.conflist')));
      if (block.includes('cni add')) {
        t.regex(stdout, /"address": "10\.88\./);
        t.is((await host.run(['ls', '/run/netns'])).trim(), '');
      }
      if (block.includes('systemctl')) {
        const told = readFileSync(host.file('/run/fake/log'), 'utf8');
        t.is(told, 'daemon-reload\nenable --now cni-dhcp.socket\n');
        for (const unit of ['cni-dhcp.socket', 'cni-dhcp.service'])
          t.is(
            readFileSync(host.file(`/etc/systemd/system/${unit}`), 'utf8'),
            readFileSync(join(root, 'conf/systemd', unit), 'utf8'),
          );
      }
    }
  });
