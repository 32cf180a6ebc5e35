/** Runs once: no agent takes part. */

import { mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import test from 'ava';
import type { Conflist } from '../support/chain.ts';
import { snapshot } from '../support/observe.ts';
import { makeOperator } from '../support/operator.ts';

const pem = '-----BEGIN EC PRIVATE KEY-----\nTOPSECRET-PEM\n-----END EC PRIVATE KEY-----';

/** A network with secrets wherever configurations in the field have them. */
const network: Conflist = {
  cniVersion: '1.1.0',
  name: 'net',
  plugins: [
    {
      type: 'ptp',
      ipam: { type: 'host-local', subnet: '10.5.0.0/24' },
      args: { cni: { note: 'kept-note' } },
    },
    { type: 'tuning', mtu: 1400 },
  ],
  etcd: {
    etcd_password: 'TOPSECRET-1',
    endpoints: 'https://admin:TOPSECRET-2@etcd.example:2379',
    ssl: { key: 'TOPSECRET-3', cert: 'kept-cert', caFile: '/kept/ca.pem' },
    clientKey: 'TOPSECRET-4',
    inline: `before ${pem} after`,
  },
  kubernetes: { k8s_auth_token: 'TOPSECRET-5', header: 'Bearer TOPSECRET-6', kubeconfig: '/kept/kubeconfig' },
  credentials: { any: ['TOPSECRET-7'] },
};

test('the archive has what is known of the host, without secrets, for root alone', async (t) => {
  const on = await makeOperator(t, [network]);
  await on.attach('net', {
    CNI_ARGS: 'IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web;SOME_TOKEN=kept-arg',
    CAP_ARGS: JSON.stringify({
      'io.kubernetes.cri.pod-annotations': {
        'kubectl.kubernetes.io/last-applied-configuration': JSON.stringify({
          spec: {
            env: [{ name: 'DB_PASSWORD', value: 'TOPSECRET-9' }],
            args: ['--password', 'TOPSECRET-10'],
          },
        }),
        'k8s.v1.cni.cncf.io/networks': 'kept-network',
      },
    }),
  });
  writeFileSync(on.host.file('/etc/cni/net.d/99-torn.conf'), '{"password": "TOPSECRET-8", "name":');
  writeFileSync(on.host.file('/var/lib/cni/results/net-torn-eth0'), '{"kind":');
  await on.sh('ln -s loop.conf /etc/cni/net.d/loop.conf');
  // As if it were of another architecture.
  writeFileSync(on.host.file('/run/tc'), '\x7fELF', { mode: 0o755 });
  await on.host.run(['sh', '-c', 'mount --bind /run/tc "$(realpath "$(command -v tc)")"']);
  const before = await snapshot(on.host);
  mkdirSync(on.host.file('/run/out'));
  const { exit, stdout, stderr } = await on.tryCni(['bugreport', '--file', '/run/out/report.tar.gz']);
  t.is(exit, 0, stderr);
  t.regex(stdout, /files in "\/run\/out\/report\.tar\.gz"/);
  t.is(statSync(on.host.file('/run/out/report.tar.gz')).mode & 0o777, 0o600);
  t.deepEqual(await snapshot(on.host), before);
  await on.sh('cd /run/out && tar xzf report.tar.gz --strip-components=1');
  const read = (name: string) => readFileSync(on.host.file(`/run/out/${name}`), 'utf8');
  const all = await on.sh('grep -r "" /run/out --exclude=report.tar.gz');
  t.deepEqual(all.match(/.*TOPSECRET.*/g), null);
  for (const kept of [
    'kept-note',
    'kept-cert',
    '/kept/ca.pem',
    '/kept/kubeconfig',
    'etcd.example:2379',
    'kept-arg',
    'kept-network',
  ])
    t.true(all.includes(kept), kept);
  t.true(read('networks/001-99-torn.conf').includes('REDACTED'), 'what is no JSON');
  t.regex(read('networks/002-loop.conf'), /cannot be read: ELOOP/);
  const results = JSON.parse(read('results.json')) as Record<string, { config?: { name: string } }>;
  t.is(Object.values(results).find((one) => one.config)?.config?.name, 'net');
  t.regex(JSON.stringify(results), /net-torn-eth0":"It cannot be read/);
  t.regex(read('host/addresses.txt'), /veth/);
  t.regex(all, /Cannot start ".*\/tc": exec format error/);
  t.regex(read('pods/001-default_web.txt'), /inet 10\.5\.0\.2\//);
  t.true((JSON.parse(read('doctor.json')) as { checks: object[] }).checks.length > 10);
  t.regex(read('host-local.json'), /10\.5\.0\.2/);
  t.notRegex(read('host/sysctl.txt'), /stable_secret = (?!"REDACTED")/);
});

test('a result cache that is out of reach hides nothing else from bugreport and doctor', async (t) => {
  const on = await makeOperator(t, [network]);
  await on.attach('net');
  await on.sh('rm -r /var/lib/cni/results; ln -s /nowhere /var/lib/cni/results; mkdir /run/out');
  const said = /Cannot list "\/var\/lib\/cni\/results"\. It or a part of its path is not a directory/;
  const { exit, stderr } = await on.tryCni(['bugreport', '--file', '/run/out/report.tar.gz']);
  t.is(exit, 0, stderr);
  await on.sh('cd /run/out && tar xzf report.tar.gz --strip-components=1');
  const read = (name: string) => readFileSync(on.host.file(`/run/out/${name}`), 'utf8');
  t.regex((JSON.parse(read('attachments.json')) as { error: string }).error, said);
  t.regex(read('host/addresses.txt'), /veth/);
  t.regex(read('host-local.json'), /10\.5\.0\.2/);
  const { checks } = JSON.parse(read('doctor.json')) as {
    checks: { id: string; findings: { severity: string; message: string }[] }[];
  };
  const errors = checks.flatMap(({ findings }) => findings).filter(({ severity }) => severity === 'error');
  t.is(errors.filter(({ message }) => said.test(message)).length, 1);
  t.true(checks.some(({ id, findings }) => id === 'conntrack' && findings.length === 0));
  t.is((await on.tryCni(['doctor'])).exit, 1);
});

test('an archive that is there already is kept, and one that cannot be written is said', async (t) => {
  const on = await makeOperator(t, []);
  writeFileSync(on.host.file('/run/mine.tar.gz'), 'mine');
  const exists = await on.tryCni(['bugreport', '--file', '/run/mine.tar.gz']);
  t.is(exists.exit, 1);
  t.regex(exists.stderr, /exists already\. Remove it, or give another --file/);
  t.is(readFileSync(on.host.file('/run/mine.tar.gz'), 'utf8'), 'mine');
  const nowhere = await on.tryCni(['bugreport', '-f', '/run/none/report.tar.gz']);
  t.is(nowhere.exit, 1);
  t.regex(nowhere.stderr, /Cannot write "\/run\/none\/report\.tar\.gz"/);
});
