import test from 'ava';
import { ifnameProblem, parseArgs, readInvocation } from '../../../lib/cni/invocation.ts';
import { CniError } from '../../../lib/errors.ts';

const good = {
  CNI_COMMAND: 'ADD',
  CNI_CONTAINERID: 'abc-1.2_3',
  CNI_NETNS: '/run/netns/x',
  CNI_IFNAME: 'eth0',
  CNI_PATH: '/a::/b',
};

const failure = (t: import('ava').ExecutionContext, run: () => unknown) => {
  const error = t.throws(run, { instanceOf: CniError })!;
  return `${error.code} ${error.message}`;
};

test('reads a whole environment', (t) => {
  t.deepEqual(readInvocation(good), {
    command: 'ADD',
    containerId: 'abc-1.2_3',
    netns: '/run/netns/x',
    ifname: 'eth0',
    args: '',
    path: ['/a', '/b'],
    netnsOverride: false,
  });
  t.true(readInvocation({ ...good, CNI_NETNS_OVERRIDE: 'True' }).netnsOverride);
});

test('names everything that is missing at once', (t) => {
  t.regex(
    failure(t, () => readInvocation({ CNI_COMMAND: 'ADD' })),
    /^4 ADD needs CNI_CONTAINERID and CNI_NETNS and CNI_IFNAME and CNI_PATH/,
  );
  t.regex(
    failure(t, () => readInvocation({ CNI_COMMAND: 'GC' })),
    /^4 GC needs CNI_PATH/,
  );
  t.is(readInvocation({ ...good, CNI_COMMAND: 'DEL', CNI_NETNS: '' }).netns, '');
  t.notThrows(() => readInvocation({ CNI_COMMAND: 'STATUS' }));
  t.notThrows(() =>
    readInvocation({ CNI_COMMAND: 'VERSION', CNI_CONTAINERID: '../x', CNI_IFNAME: 'dummy/dummy' }),
  );
});

test('refuses hostile container IDs', (t) => {
  for (const id of ['../etc', 'a b', '$(id)', '-x', '.', 'a/b', 'ü', 'a\n'])
    t.regex(
      failure(t, () => readInvocation({ ...good, CNI_CONTAINERID: id })),
      /^4 CNI_CONTAINERID is not valid/,
    );
});

test('refuses what the kernel refuses as an interface name', (t) => {
  for (const name of ['a'.repeat(16), '.', '..', 'a/b', 'a:b', 'a b', 'a\u00a0b', 'ééééééééé'])
    t.regex(
      failure(t, () => readInvocation({ ...good, CNI_IFNAME: name })),
      /^4 CNI_IFNAME is not valid/,
    );
  t.is(ifnameProblem('a'.repeat(15)), undefined);
  t.is(ifnameProblem('eth0.100'), undefined);
});

test('CNI_ARGS: known names are read, unknown ones need IgnoreUnknown', (t) => {
  t.deepEqual(parseArgs('IgnoreUnknown=TRUE;IP=10.0.0.1;K8S_POD_NAME=x', ['IP']), { IP: '10.0.0.1' });
  t.deepEqual(parseArgs('', ['IP']), {});
  t.throws(() => parseArgs('ip=10.0.0.1', ['IP']), { message: /"ip", which this plugin does not know/ });
  t.throws(() => parseArgs('IP=1=2', ['IP']), { message: /NAME=VALUE pairs/ });
  t.throws(() => parseArgs('IP', ['IP']), { message: /NAME=VALUE pairs/ });
});
