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
  ] as const)
    t.is(readSettings(['-resendmax', text]).resendMax, milliseconds, text);
  for (const text of ['', '10', 's', '1d', '-1s', '1s x'])
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
    socket: '/s',
    hostPrefix: '/h',
    broadcast: true,
    resendTimeout: 1000,
  });
});
