//! Clients and topics: the exported functions.
//!
//! Invariant: a client is shared (`Arc`), so its functions can run in several threads at once, also while it is closed. Not here: producers and consumers.

use std::ffi::{c_char, c_int};
use std::sync::Arc;
use std::time::Duration;

use tramline_client::{Client, Config, Error};

use crate::args;
use crate::constants::TOPIC_IF_NOT_EXISTS;
use crate::failure::Failure;
use crate::guard::guard;
use crate::handles::{Kind, Table};
use crate::layout::{ClientHandle, ClientOptions, Setting};

static CLIENTS: Table<Arc<Client>> = Table::new(Kind::Client);

/// Uses a client.
pub fn with_client<R>(handle: ClientHandle, each: impl FnOnce(&Client) -> Result<R, Failure>) -> Result<R, Failure> {
    CLIENTS.shared(handle.id, |client| each(&client))
}

fn defaults() -> ClientOptions {
    let config = Config::default();
    ClientOptions {
        struct_size: size_of::<ClientOptions>(),
        client_name: std::ptr::null(),
        connect_timeout_us: config.connect_timeout.as_micros() as u64,
        request_timeout_us: config.request_timeout.as_micros() as u64,
        call_timeout_us: config.call_timeout.as_micros() as u64,
        busy_poll: u32::from(config.busy_poll),
        yield_when_empty: u32::from(config.yield_when_empty),
        frame_bytes_max: config.frame_bytes_max,
        reserved: 0,
    }
}

/// `reserved` fields may get a meaning: whoever fills them with anything now would be surprised then.
pub fn check_reserved(reserved: u32) -> Result<(), Failure> {
    match reserved {
        0 => Ok(()),
        other => Err(Failure::argument(format!("the reserved field is {other}: it has to be 0"))),
    }
}

fn config(servers: &str, options: ClientOptions) -> Result<Config, Failure> {
    check_reserved(options.reserved)?;
    let mut config = Config::new(servers);
    if !options.client_name.is_null() {
        // SAFETY: the caller of connect says that it is NUL-terminated.
        config.client_name = unsafe { args::text(options.client_name, "client_name")? }.to_string();
    }
    config.connect_timeout = Duration::from_micros(options.connect_timeout_us);
    config.request_timeout = Duration::from_micros(options.request_timeout_us);
    config.call_timeout = Duration::from_micros(options.call_timeout_us);
    config.busy_poll = args::flag(options.busy_poll, "busy_poll")?;
    config.yield_when_empty = args::flag(options.yield_when_empty, "yield_when_empty")?;
    config.frame_bytes_max = options.frame_bytes_max;
    Ok(config)
}

/// See tramline.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tramline_client_options_defaults(options: *mut ClientOptions, options_size: usize) -> c_int {
    // SAFETY: the caller says that `options_size` bytes can be written there, or gives null.
    guard(|| unsafe { args::put_struct(options, options_size, defaults(), "options") })
}

/// See tramline.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tramline_client_connect(servers: *const c_char, options: *const ClientOptions, out: *mut ClientHandle) -> c_int {
    guard(|| {
        // SAFETY: the caller says that there is room for a handle, or gives null.
        unsafe { args::put(out, ClientHandle { id: 0 }, "out")? };
        // SAFETY: the caller says that the string is NUL-terminated and the struct as long as it says, or gives null.
        let (servers, options) = unsafe {
            let options = if options.is_null() { defaults() } else { args::sized(options, "options")? };
            (args::text(servers, "servers")?, options)
        };
        let config = config(servers, options)?;
        let id = CLIENTS.insert(Arc::new(Client::connect(config)?))?;
        // SAFETY: as above.
        unsafe { args::put(out, ClientHandle { id }, "out") }
    })
}

/// See tramline.h.
#[unsafe(no_mangle)]
pub extern "C" fn tramline_client_close(client: ClientHandle) -> c_int {
    guard(|| CLIENTS.close(client.id))
}

/// See tramline.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tramline_client_ping(client: ClientHandle, round_trip_us: *mut u64) -> c_int {
    guard(|| {
        let took = with_client(client, |client| Ok(client.ping()?))?;
        // SAFETY: the caller says that there is room for a number, or gives null.
        unsafe { args::put_if_wanted(round_trip_us, u64::try_from(took.as_micros()).unwrap_or(u64::MAX)) };
        Ok(())
    })
}

/// See tramline.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tramline_topic_create(
    client: ClientHandle,
    topic: *const c_char,
    partitions: u32,
    settings: *const Setting,
    setting_count: usize,
    flags: u32,
    partitions_now: *mut u32,
) -> c_int {
    guard(|| {
        // SAFETY: the caller says that the strings are NUL-terminated and the array has so many elements, or gives null.
        let (topic, settings) = unsafe { (args::text(topic, "topic")?, args::settings(settings, setting_count)?) };
        if flags & !TOPIC_IF_NOT_EXISTS != 0 {
            return Err(Failure::argument(format!("flags is {flags:#x}, the only flag is TRAMLINE_TOPIC_IF_NOT_EXISTS")));
        }
        let created = with_client(client, |client| Ok(client.create_topic(topic, partitions, &settings, flags != 0)?))?;
        // SAFETY: the caller says that there is room for a number, or gives null.
        unsafe { args::put_if_wanted(partitions_now, created.partitions) };
        Ok(())
    })
}

/// See tramline.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tramline_topic_delete(client: ClientHandle, topic: *const c_char) -> c_int {
    guard(|| {
        // SAFETY: the caller says that the string is NUL-terminated, or gives null.
        let topic = unsafe { args::text(topic, "topic")? };
        with_client(client, |client| Ok(client.delete_topic(topic)?))
    })
}

/// See tramline.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tramline_topic_partitions(client: ClientHandle, topic: *const c_char, partitions: *mut u32) -> c_int {
    guard(|| {
        // SAFETY: the caller says that the string is NUL-terminated, or gives null.
        let topic = unsafe { args::text(topic, "topic")? };
        let count = with_client(client, |client| {
            let metadata = client.metadata(&[topic])?;
            match metadata.topic(topic) {
                Some(found) if found.error.is_ok() => Ok(found.partitions.len() as u32),
                Some(found) => Err(Failure::from(Error::Refused {
                    request: format!("look up topic {topic:?}"),
                    code: found.error,
                    retriable: found.error.retriable(),
                    message: String::new(),
                    next: None,
                })),
                None => {
                    let message = format!("its metadata does not mention topic {topic:?}");
                    Err(Failure::from(Error::Protocol { address: "the broker".to_string(), message }))
                }
            }
        })?;
        // SAFETY: the caller says that there is room for a number, or gives null.
        unsafe { args::put(partitions, count, "partitions") }
    })
}
