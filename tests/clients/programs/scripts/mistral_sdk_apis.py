from mistralai.client.errors import SDKError
from mistralai.client.utils import BackoffStrategy, RetryConfig

hello = {"messages": [{"role": "user", "content": "Say hello."}]}
retries = RetryConfig("backoff", BackoffStrategy(500, 60_000, 1.5, 60_000), True)
print("said", client.chat.complete(model=model, retries=retries, **hello).choices[0].message.content)
print("embeddings", len(client.embeddings.create(model=model, inputs=["one"]).data))
refused = (
    lambda: client.chat.complete(model="unknown", **hello),
    lambda: client.chat.complete(model=model, temperature=9, **hello),
    lambda: client.fim.complete(model=model, prompt="def f("),
)
for ask in refused:
    try:
        ask()
    except SDKError as error:
        print("refused", error.status_code, error.body)
