//! `Counted`: `wasi:http` as wasmtime implements it, each resource weighed when it may have become
//! heavier.

use wasmtime::component::{HasData, Resource};
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream, DynPollable};
use wasmtime_wasi_http::p2::bindings::http::outgoing_handler;
use wasmtime_wasi_http::p2::bindings::http::types::{
    self, Duration, ErrorCode, HeaderError as HeaderErrorCode, IoError, Method, Scheme, StatusCode,
};
use wasmtime_wasi_http::p2::body::{HostFutureTrailers, HostIncomingBody, HostOutgoingBody};
use wasmtime_wasi_http::p2::types::{
    HostFutureIncomingResponse, HostIncomingRequest, HostIncomingResponse, HostOutgoingRequest,
    HostOutgoingResponse, HostResponseOutparam,
};
use wasmtime_wasi_http::p2::{HeaderError, HeaderResult, HttpError, HttpResult};
use wasmtime_wasi_http::{FieldMap, RequestOptions, WasiHttpCtxView};

use super::Ledger;
use crate::guest::limits::{BODY_CHUNK, BODY_CHUNKS, FIELD_OVERHEAD, REPLY_BYTES};

/// `wasi:http` for one call of a guest.
pub(in crate::guest) struct Counted<'a> {
    pub(in crate::guest) http: WasiHttpCtxView<'a>,
    pub(in crate::guest) ledger: &'a mut Ledger,
}

/// What the linker knows it by.
pub(in crate::guest) struct CountedHttp;

impl HasData for CountedHttp {
    type Data<'a> = Counted<'a>;
}

type Done = wasmtime::Result<()>;

/// What is answered to a guest that may be told no.
type Answer<T> = wasmtime::Result<Result<T, ()>>;

impl Counted<'_> {
    fn weigh<T: 'static>(&mut self, resource: &Resource<T>, weight: fn(&T) -> u64) -> Done {
        let bytes = weight(self.http.table.get(resource)?);
        Ok(self.ledger.set(resource.rep(), bytes)?)
    }

    /// What fields hold on their own. Those of a message share with it, and outlive it: they count
    /// in full.
    fn weighed(
        &mut self,
        made: wasmtime::Result<Resource<FieldMap>>,
    ) -> wasmtime::Result<Resource<FieldMap>> {
        let fields = made?;
        self.weigh(&fields, of_fields)?;
        Ok(fields)
    }
}

/// A map of fields doubles as it grows, and has an index.
fn of_fields(fields: &FieldMap) -> u64 {
    let one = |(name, value): (&::http::HeaderName, &::http::HeaderValue)| {
        name.as_str().len() + value.len() + FIELD_OVERHEAD
    };
    fields.iter().map(one).sum::<usize>() as u64
}

/// What may be written to a body before somebody reads it.
fn of_body<T>(body: Option<&T>) -> u64 {
    body.map_or(0, |_| (BODY_CHUNK * (BODY_CHUNKS + 1)) as u64)
}

fn of_request(request: &HostOutgoingRequest) -> u64 {
    let method = match &request.method {
        Method::Other(method) => method.len(),
        _ => 0,
    };
    let scheme = match &request.scheme {
        Some(Scheme::Other(scheme)) => scheme.len(),
        _ => 0,
    };
    let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    let texts = text(&request.authority) + text(&request.path_with_query);
    of_fields(&request.headers) + (method + scheme + texts) as u64 + of_body(request.body.as_ref())
}

fn of_response(response: &HostOutgoingResponse) -> u64 {
    of_fields(&response.headers) + of_body(response.body.as_ref())
}

fn of_answer(answer: &HostIncomingResponse) -> u64 {
    of_fields(&answer.headers)
}

/// Functions that make nothing heavier, passed on as they are.
macro_rules! pass {
    ($of:path: $(fn $name:ident($($given:ident: $kind:ty),*) -> $out:ty;)*) => {$(
        fn $name(&mut self, $($given: $kind),*) -> $out {
            <WasiHttpCtxView<'_> as $of>::$name(&mut self.http, $($given),*)
        }
    )*};
}

impl types::Host for Counted<'_> {
    pass! { types::Host:
        fn convert_error_code(error: HttpError) -> wasmtime::Result<ErrorCode>;
        fn convert_header_error(error: HeaderError) -> wasmtime::Result<HeaderErrorCode>;
        fn http_error_code(error: Resource<IoError>) -> wasmtime::Result<Option<ErrorCode>>;
    }
}

type Fields = Resource<FieldMap>;

impl types::HostFields for Counted<'_> {
    pass! { types::HostFields:
        fn new() -> wasmtime::Result<Fields>;
        fn get(fields: Fields, name: String) -> wasmtime::Result<Vec<Vec<u8>>>;
        fn has(fields: Fields, name: String) -> wasmtime::Result<bool>;
        fn entries(fields: Fields) -> wasmtime::Result<Vec<(String, Vec<u8>)>>;
    }

    fn from_list(&mut self, entries: Vec<(String, Vec<u8>)>) -> HeaderResult<Fields> {
        let fields = types::HostFields::from_list(&mut self.http, entries)?;
        self.weighed(Ok(fields)).map_err(HeaderError::trap)
    }

    fn set(&mut self, fields: Fields, name: String, values: Vec<Vec<u8>>) -> HeaderResult<()> {
        let same = Resource::new_borrow(fields.rep());
        types::HostFields::set(&mut self.http, fields, name, values)?;
        self.weigh(&same, of_fields).map_err(HeaderError::trap)
    }

    fn delete(&mut self, fields: Fields, name: String) -> HeaderResult<()> {
        let same = Resource::new_borrow(fields.rep());
        types::HostFields::delete(&mut self.http, fields, name)?;
        self.weigh(&same, of_fields).map_err(HeaderError::trap)
    }

    fn append(&mut self, fields: Fields, name: String, value: Vec<u8>) -> HeaderResult<()> {
        let same = Resource::new_borrow(fields.rep());
        types::HostFields::append(&mut self.http, fields, name, value)?;
        self.weigh(&same, of_fields).map_err(HeaderError::trap)
    }

    fn clone(&mut self, fields: Fields) -> wasmtime::Result<Fields> {
        let made = types::HostFields::clone(&mut self.http, fields);
        self.weighed(made)
    }

    fn drop(&mut self, fields: Fields) -> Done {
        self.ledger.take(fields.rep());
        types::HostFields::drop(&mut self.http, fields)
    }
}

type Incoming = Resource<HostIncomingRequest>;

impl types::HostIncomingRequest for Counted<'_> {
    pass! { types::HostIncomingRequest:
        fn method(request: Incoming) -> wasmtime::Result<Method>;
        fn path_with_query(request: Incoming) -> wasmtime::Result<Option<String>>;
        fn scheme(request: Incoming) -> wasmtime::Result<Option<Scheme>>;
        fn authority(request: Incoming) -> wasmtime::Result<Option<String>>;
        fn consume(request: Incoming) -> Answer<Resource<HostIncomingBody>>;
        fn drop(request: Incoming) -> Done;
    }

    fn headers(&mut self, request: Incoming) -> wasmtime::Result<Fields> {
        let made = types::HostIncomingRequest::headers(&mut self.http, request);
        self.weighed(made)
    }
}

type Outgoing = Resource<HostOutgoingRequest>;

impl types::HostOutgoingRequest for Counted<'_> {
    pass! { types::HostOutgoingRequest:
        fn method(request: Outgoing) -> wasmtime::Result<Method>;
        fn path_with_query(request: Outgoing) -> wasmtime::Result<Option<String>>;
        fn scheme(request: Outgoing) -> wasmtime::Result<Option<Scheme>>;
        fn authority(request: Outgoing) -> wasmtime::Result<Option<String>>;
    }

    fn new(&mut self, headers: Fields) -> wasmtime::Result<Outgoing> {
        self.ledger.take(headers.rep());
        let request = types::HostOutgoingRequest::new(&mut self.http, headers)?;
        self.weigh(&request, of_request)?;
        Ok(request)
    }

    fn body(&mut self, request: Outgoing) -> Answer<Resource<HostOutgoingBody>> {
        let same = Resource::new_borrow(request.rep());
        let body = types::HostOutgoingRequest::body(&mut self.http, request)?;
        self.weigh(&same, of_request)?;
        Ok(body)
    }

    fn set_method(&mut self, request: Outgoing, method: Method) -> Answer<()> {
        let same = Resource::new_borrow(request.rep());
        let done = types::HostOutgoingRequest::set_method(&mut self.http, request, method)?;
        self.weigh(&same, of_request)?;
        Ok(done)
    }

    fn set_path_with_query(&mut self, request: Outgoing, path: Option<String>) -> Answer<()> {
        let same = Resource::new_borrow(request.rep());
        let done = types::HostOutgoingRequest::set_path_with_query(&mut self.http, request, path)?;
        self.weigh(&same, of_request)?;
        Ok(done)
    }

    fn set_scheme(&mut self, request: Outgoing, scheme: Option<Scheme>) -> Answer<()> {
        let same = Resource::new_borrow(request.rep());
        let done = types::HostOutgoingRequest::set_scheme(&mut self.http, request, scheme)?;
        self.weigh(&same, of_request)?;
        Ok(done)
    }

    fn set_authority(&mut self, request: Outgoing, authority: Option<String>) -> Answer<()> {
        let same = Resource::new_borrow(request.rep());
        let done = types::HostOutgoingRequest::set_authority(&mut self.http, request, authority)?;
        self.weigh(&same, of_request)?;
        Ok(done)
    }

    fn headers(&mut self, request: Outgoing) -> wasmtime::Result<Fields> {
        let made = types::HostOutgoingRequest::headers(&mut self.http, request);
        self.weighed(made)
    }

    fn drop(&mut self, request: Outgoing) -> Done {
        self.ledger.take(request.rep());
        types::HostOutgoingRequest::drop(&mut self.http, request)
    }
}

impl types::HostResponseOutparam for Counted<'_> {
    pass! { types::HostResponseOutparam:
        fn drop(out: Resource<HostResponseOutparam>) -> Done;
        fn send_informational(
            out: Resource<HostResponseOutparam>,
            status: u16,
            headers: Fields
        ) -> HttpResult<()>;
    }

    fn set(
        &mut self,
        out: Resource<HostResponseOutparam>,
        response: Result<Resource<HostOutgoingResponse>, ErrorCode>,
    ) -> Done {
        match &response {
            Ok(response) => self.ledger.keep_of(response.rep()),
            // Whatever text it brings.
            Err(code) => self.ledger.keep(format!("{code:?}").len() as u64)?,
        }
        types::HostResponseOutparam::set(&mut self.http, out, response)
    }
}

type Received = Resource<HostIncomingResponse>;

impl types::HostIncomingResponse for Counted<'_> {
    pass! { types::HostIncomingResponse:
        fn status(response: Received) -> wasmtime::Result<StatusCode>;
        fn consume(response: Received) -> Answer<Resource<HostIncomingBody>>;
    }

    fn headers(&mut self, response: Received) -> wasmtime::Result<Fields> {
        let made = types::HostIncomingResponse::headers(&mut self.http, response);
        self.weighed(made)
    }

    fn drop(&mut self, response: Received) -> Done {
        self.ledger.take(response.rep());
        types::HostIncomingResponse::drop(&mut self.http, response)
    }
}

type Trailers = Resource<HostFutureTrailers>;

impl types::HostFutureTrailers for Counted<'_> {
    pass! { types::HostFutureTrailers:
        fn drop(trailers: Trailers) -> Done;
        fn subscribe(trailers: Trailers) -> wasmtime::Result<Resource<DynPollable>>;
    }

    fn get(&mut self, trailers: Trailers) -> wasmtime::Result<Option<Answered<Option<Fields>>>> {
        let answered = types::HostFutureTrailers::get(&mut self.http, trailers)?;
        if let Some(Ok(Ok(Some(fields)))) = &answered {
            self.weigh(fields, of_fields)?;
        }
        Ok(answered)
    }
}

/// What comes once, or an error of HTTP's.
type Answered<T> = Result<Result<T, ErrorCode>, ()>;

impl types::HostIncomingBody for Counted<'_> {
    pass! { types::HostIncomingBody:
        fn stream(body: Resource<HostIncomingBody>) -> Answer<Resource<DynInputStream>>;
        fn finish(body: Resource<HostIncomingBody>) -> wasmtime::Result<Trailers>;
        fn drop(body: Resource<HostIncomingBody>) -> Done;
    }
}

type Response = Resource<HostOutgoingResponse>;

impl types::HostOutgoingResponse for Counted<'_> {
    pass! { types::HostOutgoingResponse:
        fn status_code(response: Response) -> wasmtime::Result<StatusCode>;
        fn set_status_code(response: Response, status: StatusCode) -> Answer<()>;
    }

    fn new(&mut self, headers: Fields) -> wasmtime::Result<Response> {
        self.ledger.take(headers.rep());
        let response = types::HostOutgoingResponse::new(&mut self.http, headers)?;
        self.weigh(&response, of_response)?;
        Ok(response)
    }

    fn body(&mut self, response: Response) -> Answer<Resource<HostOutgoingBody>> {
        let same = Resource::new_borrow(response.rep());
        let body = types::HostOutgoingResponse::body(&mut self.http, response)?;
        self.weigh(&same, of_response)?;
        Ok(body)
    }

    fn headers(&mut self, response: Response) -> wasmtime::Result<Fields> {
        let made = types::HostOutgoingResponse::headers(&mut self.http, response);
        self.weighed(made)
    }

    fn drop(&mut self, response: Response) -> Done {
        self.ledger.take(response.rep());
        types::HostOutgoingResponse::drop(&mut self.http, response)
    }
}

type Awaited = Resource<HostFutureIncomingResponse>;

impl types::HostFutureIncomingResponse for Counted<'_> {
    pass! { types::HostFutureIncomingResponse:
        fn drop(response: Awaited) -> Done;
        fn subscribe(response: Awaited) -> wasmtime::Result<Resource<DynPollable>>;
    }

    fn get(&mut self, response: Awaited) -> wasmtime::Result<Option<Answered<Received>>> {
        let answered = types::HostFutureIncomingResponse::get(&mut self.http, response)?;
        if let Some(Ok(Ok(response))) = &answered {
            self.weigh(response, of_answer)?;
        }
        Ok(answered)
    }
}

impl types::HostOutgoingBody for Counted<'_> {
    pass! { types::HostOutgoingBody:
        fn write(body: Resource<HostOutgoingBody>) -> Answer<Resource<DynOutputStream>>;
        fn drop(body: Resource<HostOutgoingBody>) -> Done;
    }

    fn finish(
        &mut self,
        body: Resource<HostOutgoingBody>,
        trailers: Option<Fields>,
    ) -> HttpResult<()> {
        if let Some(trailers) = &trailers {
            // They lie with the message, wherever that is.
            self.ledger.keep_of(trailers.rep());
        }
        types::HostOutgoingBody::finish(&mut self.http, body, trailers)
    }
}

type Options = Resource<RequestOptions>;

impl types::HostRequestOptions for Counted<'_> {
    pass! { types::HostRequestOptions:
        fn new() -> wasmtime::Result<Options>;
        fn connect_timeout(options: Options) -> wasmtime::Result<Option<Duration>>;
        fn set_connect_timeout(options: Options, limit: Option<Duration>) -> Answer<()>;
        fn first_byte_timeout(options: Options) -> wasmtime::Result<Option<Duration>>;
        fn set_first_byte_timeout(options: Options, limit: Option<Duration>) -> Answer<()>;
        fn between_bytes_timeout(options: Options) -> wasmtime::Result<Option<Duration>>;
        fn set_between_bytes_timeout(options: Options, limit: Option<Duration>) -> Answer<()>;
        fn drop(options: Options) -> Done;
    }
}

impl outgoing_handler::Host for Counted<'_> {
    /// What is held for the request goes with it, and what its answer may take.
    fn handle(&mut self, request: Outgoing, options: Option<Options>) -> HttpResult<Awaited> {
        let charge = self.ledger.take(request.rep());
        let mut charge = match charge {
            Some(charge) => charge,
            None => self.ledger.account().charge(0).map_err(HttpError::trap)?,
        };
        charge.add(REPLY_BYTES).map_err(HttpError::trap)?;
        self.ledger.pass_on(charge);
        let sent = outgoing_handler::Host::handle(&mut self.http, request, options);
        self.ledger.take_back();
        sent
    }
}
