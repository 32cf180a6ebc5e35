import test from 'ava';
import { probeKernel } from '../../../lib/cni/kernel-probe.ts';
import { createLink, getLink } from '../../../lib/kernel/link.ts';

test('a trial sees a namespace with nothing in it', (t) => {
  t.plan(1);
  probeKernel((socket) => t.false(getLink(socket, 'lo')?.up));
});

test('what the kernel cannot do makes the plugin unavailable, and the kernel is quoted', (t) => {
  const error = t.throws(() =>
    probeKernel((socket) => void socket.execute(createLink({ kind: 'warpdrive' }, { name: 'trial' }))),
  );
  t.like(error, { code: 50 });
  t.regex(error.message, /create warpdrive interface "trial": Unknown device type/);
});
