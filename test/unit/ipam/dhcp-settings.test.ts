import test from 'ava';
import { readSettings } from '../../../ipam/dhcp/settings.ts';

test('durations are read as Go writes them', (t) => {
  for (const [text, milliseconds] of [
    ['250ms', 250],
    ['10s', 10_000],
    ['1.5s', 1500],
    ['1m30s', 90_000],
    ['2h', 7_200_000],
    ['1h1m1s1ms', 3_661_001],
    ['0', 0],
    ['500us', 0.5],
    ['1.s.5ms', 1000.5],
  ] as const)
    t.is(readSettings(['-resendmax', text]).resendMax, milliseconds, text);
  for (const text of ['', '10', '.s', 's', '1d', '-1s', '1s x'])
    t.throws(() => readSettings([`--resendmax=${text}`]), { message: /-resendmax is .* must be like/ }, text);
});

test('what is not given is as in the reference daemon', (t) => {
  t.deepEqual(readSettings([]), {
    pidFile: undefined,
    socket: '/run/cni/dhcp.sock',
    hostPrefix: '',
    broadcast: false,
    resendMax: 62_000,
    resendTimeout: 30_000,
  });
  const given = [
    '-pidfile',
    '/p',
    '-socketpath',
    '/s',
    '-hostprefix',
    '/h',
    '-broadcast',
    '--resendtimeout',
    '1s',
  ];
  t.like(readSettings(given), {
    pidFile: '/p',
    socket: '/h/s',
    hostPrefix: '/h',
    broadcast: true,
    resendTimeout: 1000,
  });
});

test('the socket is below the prefix of the host, whether it is given or not', (t) => {
  for (const given of [[], ['-socketpath='], ['-socketpath', '']])
    t.is(readSettings(['-hostprefix', '/host', ...given]).socket, '/host/run/cni/dhcp.sock');
});

test('a boolean may have a value, as in Go', (t) => {
  for (const [text, expected] of [
    ['-broadcast', true],
    ['--broadcast=true', true],
    ['-broadcast=1', true],
    ['-broadcast=false', false],
    ['-broadcast=F', false],
  ] as const)
    t.is(readSettings([text, '-timeout=0']).broadcast, expected, text);
  t.throws(() => readSettings(['-broadcast=yes']), { message: /-broadcast is "yes", but it must be "true"/ });
});
