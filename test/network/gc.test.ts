/** What `cni gc`, and the commands that share its view of the host, take for orphaned. */

import test from 'ava';
import { bridged } from '../support/doctor.ts';
import { makeOperator } from '../support/operator.ts';

test('pods that a shell in another mount namespace does not see are not taken for orphaned', async (t) => {
  const on = await makeOperator(t, [bridged]);
  const output = await on.sh(`unshare --pid --fork --kill-child --mount-proc sh -ec '
    ln -s /run /run/absolute
    unshare --mount --propagation private sleep 300 > /dev/null &
    shell=$!
    until test "$(readlink /proc/$shell/ns/mnt)" != "$(readlink /proc/self/ns/mnt)"; do sleep 0.05; done
    ip netns add late
    cni add net /run/absolute/netns/late > /dev/null
    within() { nsenter --mount=/proc/$shell/ns/mnt "$@"; }
    for command in list doctor "doctor --fix" repair gc "gc --all"; do
      code=0; within cni $command > /run/said 2>&1 || code=$?
      echo "$command: $code"; cat /run/said
    done
    ls /var/lib/cni/networks/net
    ip netns exec late ip -brief address show dev eth0
    within nsenter --target 1 --mount -- cni gc
    ip netns del late
    within cni gc
    kill $shell'`);
  const said = output.match(/^.*\/run\/absolute\/netns\/late" \(1 of 1\).* nsenter --target 1 --mount/gm);
  t.is(said?.length, 6, output);
  for (const command of ['list', 'doctor', 'doctor --fix', 'repair', 'gc', 'gc --all'])
    t.true(output.includes(`${command}: 1\nError: This process`), `${command}: ${output}`);
  t.regex(output, /^10\.5\.0\.2$[\s\S]*^eth0@\S+ +UP +10\.5\.0\.2\/24/m);
  t.deepEqual(output.match(/^\d+ attachments? removed.*/gm), [
    '0 attachments removed, 1 kept.',
    '1 attachment removed, 0 kept.',
  ]);
});
