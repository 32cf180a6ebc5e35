/** The commands of docs/multus.md that make the kubeconfig of a node. Runs once: no agent takes part. */

import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { makeHost } from '../support/host.ts';

const docs = readFileSync(join(import.meta.dirname, '../../docs/multus.md'), 'utf8');

/** A kubectl that notes its calls, and has a token. */
const kubectl = `#!/bin/sh
echo "\${KUBECONFIG-its own} $(umask): $1 $2" >> /run/calls
case "$*" in *set-credentials*) echo "$*" >> /run/credentials ;; *secret*) echo c2VjcmV0 ;; esac
`;

test('the commands for the kubeconfig leave the shell as it was', async (t) => {
  const [, commands] = /```sh\n(kubectl apply[^`]*)```/.exec(docs)!;
  const host = await makeHost(t, { mayHaveAgent: false });
  await host.run(['mkdir', '/run/bin']);
  writeFileSync(host.file('/run/bin/kubectl'), kubectl, { mode: 0o755 });
  const script = `PATH=/run/bin:$PATH; unset KUBECONFIG; umask 022; ${commands}\necho "\${KUBECONFIG-unset} $(umask)"`;
  t.is((await host.run(['sh', '-ec', script])).trim(), 'unset 0022');
  const own = '/etc/cni/multus/cni-multus.kubeconfig 0077';
  t.deepEqual(readFileSync(host.file('/run/calls'), 'utf8').trim().split('\n'), [
    'its own 0022: apply --filename',
    'its own 0022: --namespace kube-system',
    `${own}: config set-cluster`,
    `${own}: config set-credentials`,
    `${own}: config set-context`,
    `${own}: config use-context`,
  ]);
  t.regex(readFileSync(host.file('/run/credentials'), 'utf8'), /--token secret$/m);
});
